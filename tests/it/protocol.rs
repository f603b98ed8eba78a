//! The protocol as others build on it: what it is called, what is said about it, and that nothing that was there goes away.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, SourceCodeInfo,
    field_descriptor_proto::{Label, Type},
};

/// The services' definitions; those of the journal are the daemon's own.
const FILES: [&str; 6] = [
    "birthmark/v1/issuance.proto",
    "birthmark/v1/admin.proto",
    "birthmark/v1/stations.proto",
    "birthmark/v1/approvals.proto",
    "birthmark/v1/audit.proto",
    "birthmark/v1/vending.proto",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn definitions() -> Vec<FileDescriptorProto> {
    let compiled = protox::compile(FILES, [root().join("proto")]).unwrap();
    compiled.file.into_iter().filter(|file| FILES.contains(&file.name())).collect()
}

/// The comments before each definition, by their paths in the descriptor.
fn comments(info: &SourceCodeInfo) -> BTreeMap<Vec<i32>, String> {
    info.location.iter().map(|place| (place.path.clone(), place.leading_comments().to_owned())).collect()
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_snake(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.split('_').all(part)
}

/// `RecordState` as its values begin: `RECORD_STATE_`.
fn value_prefix(name: &str) -> String {
    let mut prefix = String::new();
    for (index, letter) in name.char_indices() {
        if index > 0 && letter.is_ascii_uppercase() {
            prefix.push('_');
        }
        prefix.push(letter.to_ascii_uppercase());
    }
    prefix + "_"
}

fn lint_enum(file: &str, found: &EnumDescriptorProto, faults: &mut Vec<String>) {
    let (name, prefix) = (found.name(), value_prefix(found.name()));
    if found.value.first().is_none_or(|value| value.number() != 0 || value.name() != format!("{prefix}UNSPECIFIED")) {
        faults.push(format!("{file}: {name} does not begin with {prefix}UNSPECIFIED = 0"));
    }
    for value in found.value.iter().filter(|value| !value.name().starts_with(&prefix)) {
        faults.push(format!("{file}: {} of {name} does not begin with {prefix}", value.name()));
    }
}

/// The rules of `buf lint` (its category BASIC, and comments) that fit this protocol; and an example at each call.
#[test]
fn protocol_keeps_the_rules_of_the_trade() {
    let mut faults = Vec::new();
    for file in definitions() {
        let name = file.name().to_owned();
        assert_eq!((file.package(), file.syntax()), ("birthmark.v1", "proto3"), "{name}");
        let said = comments(file.source_code_info.as_ref().unwrap());
        let mut must_say = |path: Vec<i32>, what: &str| {
            if said.get(&path).is_none_or(|comment| comment.trim().is_empty()) {
                faults.push(format!("{name}: {what} has no comment"));
            }
        };
        for (index, service) in (0..).zip(&file.service) {
            must_say(vec![6, index], service.name());
            for (call, method) in (0..).zip(&service.method) {
                must_say(vec![6, index, 2, call], method.name());
            }
        }
        for (index, found) in (0..).zip(&file.enum_type) {
            must_say(vec![5, index], found.name());
        }
        for (index, service) in (0..).zip(&file.service) {
            for (call, method) in (0..).zip(&service.method) {
                let shown = format!("{}.{}/{}", file.package(), service.name(), method.name());
                let comment = said.get(&vec![6, index, 2, call]).map_or("", String::as_str);
                if !comment.contains("grpcurl ") || !comment.contains(&shown) {
                    faults.push(format!("{name}: {} has no example", method.name()));
                }
            }
        }
        let messages = file.message_type.iter().map(DescriptorProto::name);
        let methods = file.service.iter().flat_map(|service| service.method.iter().map(|method| method.name()));
        let services = file.service.iter().map(|service| service.name());
        let names = messages.chain(methods).chain(services).chain(file.enum_type.iter().map(|found| found.name()));
        faults
            .extend(names.filter(|found| !is_pascal(found)).map(|found| format!("{name}: {found} is not PascalCase")));
        for message in &file.message_type {
            let fields = message.field.iter().map(FieldDescriptorProto::name);
            let odd = fields.filter(|field| !is_snake(field));
            faults.extend(odd.map(|field| format!("{name}: {field} of {} is not lower_snake_case", message.name())));
        }
        file.enum_type.iter().for_each(|found| lint_enum(&name, found, &mut faults));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn field_line(message: &str, field: &FieldDescriptorProto) -> String {
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let within = field.oneof_index.filter(|_| !field.proto3_optional()).map_or("", |_| " in a oneof");
    format!("field {message}.{} = {}: {repeated}{kind}{within}", field.name(), field.number())
}

fn message_lines(
    prefix: &str,
    message: &DescriptorProto,
    lines: &mut BTreeSet<String>,
    reserved: &mut BTreeSet<String>,
) {
    let name = format!("{prefix}.{}", message.name());
    lines.extend(message.field.iter().map(|field| field_line(&name, field)));
    for range in &message.reserved_range {
        reserved.extend((range.start()..range.end()).map(|number| format!("{name} = {number}")));
    }
    message.nested_type.iter().for_each(|nested| message_lines(&name, nested, lines, reserved));
}

/// What clients depend on, a line each; and the numbers of fields that are never used again.
fn surface() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut lines, mut reserved) = (BTreeSet::new(), BTreeSet::new());
    for file in definitions() {
        let package = file.package().to_owned();
        for service in &file.service {
            for method in &service.method {
                let streams = |streams: bool| if streams { "stream " } else { "" };
                lines.insert(format!(
                    "call {package}.{}/{}({}{}) returns ({}{})",
                    service.name(),
                    method.name(),
                    streams(method.client_streaming()),
                    method.input_type().trim_start_matches('.'),
                    streams(method.server_streaming()),
                    method.output_type().trim_start_matches('.'),
                ));
            }
        }
        file.message_type.iter().for_each(|message| message_lines(&package, message, &mut lines, &mut reserved));
        for found in &file.enum_type {
            let value = |value: &prost_types::EnumValueDescriptorProto| {
                format!("value {package}.{}.{} = {}", found.name(), value.name(), value.number())
            };
            lines.extend(found.value.iter().map(value));
        }
    }
    (lines, reserved)
}

/// A client that was built against the version before goes on working: what `proto/released.txt` has is there still, or its
/// number is reserved. After a release, BIRTHMARK_RELEASE=1 writes the file anew.
#[test]
fn protocol_of_the_version_before_still_works() {
    let path = root().join("proto/released.txt");
    let (lines, reserved) = surface();
    if std::env::var_os("BIRTHMARK_RELEASE").is_some() {
        fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
    let before = fs::read_to_string(&path).unwrap();
    assert!(before.lines().count() > 50, "{} lines", before.lines().count());
    let is_reserved = |line: &str| {
        let field = line.strip_prefix("field ").and_then(|field| field.split(':').next()).unwrap_or_default();
        let number = field.rsplit(" = ").next().unwrap_or_default();
        let message = field.rsplit_once('.').map_or("", |(message, _)| message);
        reserved.contains(&format!("{message} = {number}"))
    };
    let gone: Vec<_> = before.lines().filter(|line| !lines.contains(*line) && !is_reserved(line)).collect();
    assert!(gone.is_empty(), "clients of the version before depend on this:\n{}", gone.join("\n"));
}
