use super::*;

fn parse(text: &str) -> Result<Settings, Vec<SettingError>> {
    Settings::parse(&text.parse().unwrap())
}

fn errors(text: &str) -> String {
    parse(text).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What the journal keeps is read again as it was, presets written out.
#[test]
fn settings_survive_the_journal() {
    for text in [
        "format = 'jsonl'",
        "format = 'jsonl'\nchunk = 50000",
        "format = 'aws-bulk'\npolicy = 'p'\nthing_name = 'x-{device_id}'\nthing_type = 't'\nthing_groups = ['a', 'b']\n\
         attributes = { lot = '{order}', hw = '{order.hw}', vendor = 'acme' }",
        "format = 'csv'",
        "format = 'csv'\ncolumns = ['device_id', 'a b={order.x}-{profile}']",
        "format = 'thingpress'\nchunk = 7",
        "format = 'azure-dps'\ngroup = 'site-1'",
        "format = 'matter'",
    ] {
        let settings = parse(text).unwrap();
        let json = settings.to_json();
        assert_eq!(Settings::from_json(&json).unwrap(), settings, "{json}");
        assert_eq!(Settings::from_json(&json).unwrap().to_json(), json);
    }
    let json = parse("format = 'aws-bulk'").unwrap().to_json();
    assert_eq!(
        json,
        r#"{"format":"aws-bulk","policy":"device","thing_name":"{device_id}","thing_type":null,"thing_groups":[],"attributes":{},"chunk":10000}"#
    );
    assert!(Settings::from_json("{\"format\":\"smoke-signals\",\"chunk\":1}").is_err());
}

/// What the platform would refuse is refused at the start, by its key and with what would be right.
#[test]
fn setting_that_the_platform_refuses_is_named() {
    let long = "x".repeat(129);
    for (text, says) in [
        ("chunk = 1", "format: it is missing; say which: jsonl, aws-bulk"),
        ("format = 7", "format: it must be a string, and is a number"),
        ("format = 'xml'", "format: \"xml\" is no format; choose one of jsonl"),
        ("format = 'jsonl'\npolicy = 'x'", "policy: the format jsonl has no key \"policy\"; it has format, chunk"),
        ("format = 'jsonl'\nchunk = 0", "chunk: it must be 1 to 50000, and is 0"),
        ("format = 'azure-dps'\nchunk = 11", "chunk: it must be 1 to 10, and is 11"),
        ("format = 'matter'\nchunk = 2", "chunk: the format matter has no key"),
        ("format = 'aws-bulk'\npolicy = 'a policy'", "policy: \"a policy\" cannot be an AWS IoT policy: 1 to 128"),
        (&format!("format = 'aws-bulk'\npolicy = '{long}'"), "policy: "),
        ("format = 'aws-bulk'\nthing_name = 'dev.{device_id}'", "thing_name: \"dev.\" cannot be an AWS IoT thing name"),
        ("format = 'aws-bulk'\nthing_name = ''", "thing_name: \"\" cannot be"),
        (
            "format = 'aws-bulk'\nthing_name = '{device}'",
            "unknown placeholder {device}; the placeholders are {device_id}",
        ),
        ("format = 'aws-bulk'\nthing_name = '{certificate_pem}'", "unknown placeholder {certificate_pem}"),
        ("format = 'aws-bulk'\nthing_name = '{device_id'", "a brace by itself"),
        ("format = 'aws-bulk'\nthing_type = 'a b'", "thing_type: \"a b\" cannot be an AWS IoT thing type"),
        ("format = 'aws-bulk'\nthing_groups = ['a', '']", "thing_groups: \"\" cannot be an AWS IoT thing group"),
        ("format = 'aws-bulk'\nthing_groups = ['a', 1]", "thing_groups: it must be a list of strings"),
        ("format = 'aws-bulk'\nthing_groups = ['1','2','3','4','5','6','7','8','9','a','b']", "at most 10 groups"),
        (
            "format = 'aws-bulk'\nattributes = { 'a b' = 'x' }",
            "attributes.a b: \"a b\" cannot be an AWS IoT name of an",
        ),
        (
            "format = 'aws-bulk'\nattributes = { a = 'two words' }",
            "attributes.a: \"two words\" cannot be an AWS IoT value",
        ),
        ("format = 'aws-bulk'\nattributes = { a = '' }", "attributes.a: \"\" cannot be"),
        (
            "format = 'aws-bulk'\nattributes = { a = 'x', b = 'x', c = 'x', d = 'x' }",
            "attributes: a thing without a thing_type has at most 3; these are 4",
        ),
        ("format = 'csv'\npreset = 'oracle'", "preset: \"oracle\" is no preset; choose one of generic, thingsboard"),
        ("format = 'csv'\npreset = 'generic'\ncolumns = ['device_id']", "preset: give a preset or columns, not both"),
        ("format = 'csv'\ncolumns = []", "columns: there must be 1 to 100; these are 0"),
        ("format = 'csv'\ncolumns = ['order', 'order={profile}']", "columns: two columns are called \"order\""),
        ("format = 'csv'\ncolumns = ['=x']", "columns: \"=x\" must be NAME=VALUE"),
        ("format = 'azure-dps'\ngroup = 'Site'", "group: \"Site\" cannot be the id of an Azure DPS enrolment group"),
    ] {
        let told = errors(text);
        assert!(told.contains(says), "{text}: {told}");
    }
    let many: String = (0..50).map(|at| format!("'{at:0100}' = 'x', ")).collect();
    let told = errors(&format!("format = 'aws-bulk'\nthing_type = 't'\nattributes = {{ {many} }}"));
    assert!(told.contains("AWS takes 10240"), "{told}");
    // All that is wrong is said at once.
    assert_eq!(errors("format = 'csv'\nchunk = 0\npreset = 'x'\nmore = 1").lines().count(), 3);
}
