use std::error::Error;

use super::*;
use crate::export::sample::Sample;

fn settings(text: &str) -> AwsBulk {
    let table: toml::Table = text.parse().unwrap();
    let mut keys = Keys::new(&table);
    AwsBulk::read(&mut keys)
}

/// The parameters of a line are those that the template declares, whatever the attributes are called.
#[test]
fn aws_line_has_the_parameters_of_the_template() -> Result<(), Box<dyn Error>> {
    let settings = settings("attributes = { 'a-b' = '1', ab = '2', aB = '3', lot = '{order}' }\nthing_type = 't'");
    let sample = Sample::new("dev-1")?;
    let mut line = String::new();
    settings.writer().append(&sample.certificate(), &mut line)?;
    let line: Map<String, Value> = serde_json::from_str(&line)?;
    let template: Value = serde_json::from_str(&settings.template())?;
    let declared = template["Parameters"].as_object().ok_or("no parameters")?;
    assert!(line.keys().eq(declared.keys()), "{line:?} {declared:?}");
    assert!(line.keys().skip(3).eq(["AttributeAb", "AttributeAB", "AttributeAbX", "AttributeLot"]), "{line:?}");
    let payload = &template["Resources"]["thing"]["Properties"]["AttributePayload"];
    assert_eq!(line[payload["lot"]["Ref"].as_str().ok_or("no lot")?], "lot:42");
    assert_eq!(template["Resources"]["thing"]["OverrideSettings"]["AttributePayload"], "MERGE");
    Ok(())
}

/// What AWS would refuse after the whole task has run is refused before, with what would be right.
#[test]
fn aws_refuses_unfit_devices_by_reason() -> Result<(), Box<dyn Error>> {
    let usual = settings("attributes = { hw = '{order.hw}' }");
    for (device, hw, says) in [
        ("dev-1", Some("rev-C"), None),
        ("dev.1", Some("rev-C"), Some("\"dev.1\" cannot be an AWS IoT thing name: 1 to 128 characters of")),
        ("dev-1", Some("rev C"), Some("\"rev C\" cannot be an AWS IoT value of an attribute")),
        ("dev-1", Some(""), Some("\"\" cannot be an AWS IoT value of an attribute")),
        ("dev-1", None, Some("its order lot:42 has no attribute hw, which {order.hw} needs")),
    ] {
        let mut sample = Sample::new(device)?;
        sample.attributes = hw.iter().map(|hw| ("hw".to_owned(), (*hw).to_owned())).collect();
        let refused = usual.fitness(&sample.certificate()).err().map(|why| why.to_string());
        assert_eq!(refused.is_some(), says.is_some(), "{refused:?}");
        assert!(refused.unwrap_or_default().contains(says.unwrap_or_default()), "{says:?}");
        assert_eq!(usual.writer().append(&sample.certificate(), &mut String::new()).is_err(), says.is_some());
    }
    let long = Sample::of("dev-1", &rcgen::PKCS_ED25519)?;
    assert!(usual.fitness(&long.certificate()).unwrap_err().to_string().contains("takes no Ed25519 key"));
    assert!(
        check_pem(&"x".repeat(4097), "certificate")
            .unwrap_err()
            .to_string()
            .contains("4097 characters of PEM; AWS takes 4096")
    );
    Ok(())
}
