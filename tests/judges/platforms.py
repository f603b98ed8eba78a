"""Reads a bundle's files as the platforms do, with their own models and libraries: platforms.py FORMAT BUNDLE [AUDIT.pem]

FORMAT is jws, jsonl, aws-bulk, csv, espressif, thingpress, azure-dps or matter. Prints what it found as JSON, or on standard error
what is wrong, and exits 1.
"""

import base64
import binascii
import csv
import hashlib
import json
import pathlib
import re
import sys

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID


def must(holds, message):
    if not holds:
        raise SystemExit(message)


def data(bundle):
    return sorted(bundle.glob("data-*"))


def common_name(certificate):
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return name.value


def certificate_id(certificate):
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def jws(bundle, audit):
    """RFC 7515 by joserfc: the signature, the key's thumbprint, the payload."""
    from joserfc import jws
    from joserfc.jwk import ECKey, RSAKey

    pem = pathlib.Path(audit).read_bytes()
    kind = ECKey if len(pem) < 300 else RSAKey
    key = kind.import_key(pem)
    compact = (bundle / "manifest.jws").read_bytes()
    registry = jws.JWSRegistry(algorithms=["ES256", "RS256"], strict_check_header=True)
    registry.max_payload_length = 1 << 30
    signed = jws.deserialize_compact(compact, key, registry=registry)
    must(signed.payload == (bundle / "manifest.json").read_bytes(), "the payload is another manifest")
    must(signed.headers()["kid"] == key.thumbprint(), "kid is not the key's RFC 7638 thumbprint")
    must(set(signed.headers()) == {"alg", "kid", "typ"}, f"headers: {signed.headers()}")
    return signed.headers()


class AwsModel:
    """The service model of botocore, with the patterns and lengths that botocore itself does not check."""

    def __init__(self):
        import botocore.session

        self.model = botocore.session.get_session().get_service_model("iot")

    def check(self, shape, value):
        metadata = self.model.shape_for(shape).metadata
        must(metadata.get("min", 0) <= len(value) <= metadata.get("max", len(value)), f"{shape}: {len(value)} characters")
        pattern = metadata.get("pattern")
        must(pattern is None or re.fullmatch(pattern, value), f"{shape}: {value!r} does not fit {pattern}")

    def check_call(self, operation, arguments):
        import botocore.validate

        shape = self.model.operation_model(operation).input_shape
        report = botocore.validate.ParamValidator().validate(arguments, shape)
        must(not report.has_errors(), f"{operation}: {report.generate_report()}")


def expand(value, parameters):
    """A template's resources with a line's parameters."""
    if isinstance(value, dict):
        if set(value) == {"Ref"}:
            return parameters[value["Ref"]]
        return {key: expand(inner, parameters) for key, inner in value.items()}
    return [expand(inner, parameters) for inner in value] if isinstance(value, list) else value


def aws_bulk(bundle):
    """Every value against the service model, the template expanded for each line as the bulk task does."""
    aws = AwsModel()
    body = (bundle / "template.json").read_text("utf-8")
    aws.check("TemplateBody", body)
    template = json.loads(body)
    things = {}
    for file in data(bundle):
        aws.check("RegistryS3KeyName", f"{bundle.name}/{file.name}")
        for line in file.read_text("utf-8").splitlines():
            must(len(line) < 256 << 10, "a line of more than 256 KiB")
            parameters = json.loads(line)
            must(set(parameters) == set(template["Parameters"]), "parameters are not those of the template")
            for name, value in parameters.items():
                aws.check("Parameter", name)
                aws.check("Value", value)
            aws.check_call("RegisterThing", {"templateBody": body, "parameters": parameters})
            resources = {name: expand(resource, parameters) for name, resource in template["Resources"].items()}
            thing = resources["thing"]["Properties"]
            aws.check("ThingName", thing["ThingName"])
            for name, value in thing.get("AttributePayload", {}).items():
                aws.check("AttributeName", name)
                aws.check("AttributeValue", value)
            must(len(thing.get("AttributePayload", {})) <= (50 if "ThingTypeName" in thing else 3), "too many attributes")
            if "ThingTypeName" in thing:
                aws.check("ThingTypeName", thing["ThingTypeName"])
            for group in thing.get("ThingGroups", []):
                aws.check("ThingGroupName", group)
            aws.check("PolicyName", resources["policy"]["Properties"]["PolicyName"])
            properties = resources["certificate"]["Properties"]
            pems = [properties["CertificatePem"], properties["CACertificatePem"]]
            for pem in pems:
                aws.check("CertificatePem", pem)
            leaf, ca = [x509.load_pem_x509_certificate(pem.encode()) for pem in pems]
            leaf.verify_directly_issued_by(ca)
            things[thing["ThingName"]] = thing.get("AttributePayload", {})
    return things


def jsonl(bundle):
    devices = {}
    for file in data(bundle):
        for line in file.read_text("utf-8").splitlines():
            line = json.loads(line)
            leaf = x509.load_pem_x509_certificate(line["certificate"].encode())
            chain = x509.load_pem_x509_certificates((bundle / f"issuers/{line['issuer_sha256']}.pem").read_bytes())
            leaf.verify_directly_issued_by(chain[0])
            must(line["certificate_id"] == certificate_id(leaf), "certificate_id")
            must(int(line["serial_number"], 16) == leaf.serial_number, "serial_number")
            must(line["not_after"] == leaf.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"), "not_after")
            devices[line["device_id"]] = line["order_attributes"]
    return devices


def records(bundle):
    for file in data(bundle):
        content = file.read_bytes()
        must(content.endswith(b"\r\n") and not content.startswith(b"\xef\xbb\xbf"), "no RFC 4180")
        with open(file, encoding="utf-8", newline="") as text:
            yield from csv.DictReader(text, strict=True)


def csv_file(bundle):
    """Python's csv, strict."""
    return list(records(bundle))


def espressif(bundle):
    """As Thingpress' provider for Espressif reads them: the columns MAC and cert."""
    return {row["MAC"]: common_name(x509.load_pem_x509_certificate(row["cert"].encode())) for row in records(bundle)}


def thingpress(bundle):
    """As Thingpress' provider for generated certificates does: base64, PEM, and the CN as the thing's name."""
    names = []
    for file in data(bundle):
        for line in file.read_text("ascii").splitlines():
            pem = base64.b64decode(line.strip(), validate=True)
            names.append(common_name(x509.load_pem_x509_certificate(pem)))
    return names


def azure_dps(bundle):
    """Microsoft's SDK: its models take every field, and write the same again."""
    from msrest import Deserializer, Serializer
    from provisioningserviceclient.protocol import models

    classes = {name: value for name, value in vars(models).items() if isinstance(value, type)}
    read, write = Deserializer(classes), Serializer(classes)

    def known(kind, content):
        value = read(kind, content)
        for field in value._attribute_map:
            part = getattr(value, field)
            for one in part if isinstance(part, list) else [part]:
                must(not getattr(one, "additional_properties", None), f"{kind}.{field} has fields unknown to the SDK")
        must(not getattr(value, "additional_properties", None), f"{kind} has fields unknown to the SDK")
        again = write.body(value, kind)
        must(again == content, f"{kind}: {again} instead of {content}")
        return value

    registrations = {}
    for file in data(bundle):
        operation = known("BulkEnrollmentOperation", json.loads(file.read_text("utf-8")))
        must(operation.mode == "create" and 1 <= len(operation.enrollments) <= 10, "not 1 to 10 enrolments")
        for enrollment in operation.enrollments:
            encoded = enrollment.attestation.x509.client_certificates.primary.certificate
            leaf = x509.load_der_x509_certificate(base64.b64decode(encoded, validate=True))
            must(enrollment.registration_id == common_name(leaf), "the registration id is not the CN")
            registrations[enrollment.registration_id] = enrollment.device_id
    for file in bundle.glob("enrollment-group*.json"):
        group = known("EnrollmentGroup", json.loads(file.read_text("utf-8")))
        encoded = group.attestation.x509.signing_certificates.primary.certificate
        ca = x509.load_der_x509_certificate(base64.b64decode(encoded, validate=True))
        must(ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca, "no CA")
    return registrations


def matter(bundle):
    """DACs and PAIs in DER, by VID and PID."""
    vendor, product = (x509.ObjectIdentifier(f"1.3.6.1.4.1.37244.2.{arc}") for arc in (1, 2))
    pais = {}
    for file in bundle.glob("*/pai/*.der"):
        pai = x509.load_der_x509_certificate(file.read_bytes())
        pais[(file.parent.parent.name, pai.subject.public_bytes())] = pai
    names = []
    for file in bundle.glob("*/*.der"):
        dac = x509.load_der_x509_certificate(file.read_bytes())
        must(len(file.read_bytes()) <= 600, "a DAC of more than 600 octets")
        ids = [dac.subject.get_attributes_for_oid(oid)[0].value for oid in (vendor, product)]
        must("-".join(ids) == file.parent.name, "VID and PID are not the folder's name")
        candidates = [pai for (folder, _), pai in pais.items() if folder == file.parent.name]
        must(any(issued(dac, pai) for pai in candidates), f"no PAI beside {file.name} has issued it")
        names.append(file.stem)
    return sorted(names)


def issued(certificate, ca):
    try:
        certificate.verify_directly_issued_by(ca)
    except Exception:
        return False
    return True


JUDGES = {
    "jws": jws,
    "jsonl": jsonl,
    "aws-bulk": aws_bulk,
    "csv": csv_file,
    "espressif": espressif,
    "thingpress": thingpress,
    "azure-dps": azure_dps,
    "matter": matter,
}

if __name__ == "__main__":
    try:
        found = JUDGES[sys.argv[1]](pathlib.Path(sys.argv[2]), *sys.argv[3:])
    except (ValueError, KeyError, IndexError, binascii.Error) as error:
        raise SystemExit(f"{sys.argv[2]}: {error!r}") from error
    json.dump(found, sys.stdout)
