"""Registers a bundle of the format aws-bulk with MiniStack, an emulator of AWS, in a network of its own: aws_emulator.py BUNDLE...

The template is judged by CreateProvisioningTemplate (type=JITP), whose refusals are AWS's own; its thing and policy parts run
through fleet provisioning over MQTT, once for each line; each line's certificate is registered and attached. Bundles after
the first are of the same devices: the things exist already. Prints the things as JSON, or what is wrong, and exits 1.
"""

import copy
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

API = "http://127.0.0.1:4566"
MQTT_PORT = 8883
ROLE = "arn:aws:iam::000000000000:role/provisioning"


def emulator(folder):
    environment = os.environ | {
        "GATEWAY_PORT": "4566",
        "BIND_HOST": "127.0.0.1",
        "IOT_MTLS_ENABLED": "1",
        "IOT_MTLS_PORT": str(MQTT_PORT),
        "SFTP_ENABLED": "0",
        "MINISTACK_ACCOUNT_ID": "000000000000",
        "MINISTACK_REGION": "us-east-1",
    }
    program = pathlib.Path(sys.executable).parent / "ministack"
    log = open(folder / "emulator.log", "wb")
    process = subprocess.Popen([program], env=environment, stdout=log, stderr=log, cwd=folder)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{API}/_ministack/health", timeout=5).read()
            return process
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise SystemExit(f"the emulator does not start: {(folder / 'emulator.log').read_text()}")


class Claim:
    """A connection with which devices are provisioned, one after another."""

    def __init__(self, iot, folder):
        import paho.mqtt.client as mqtt

        made = iot.create_keys_and_certificate(setAsActive=True)
        (folder / "claim.pem").write_text(made["certificatePem"])
        (folder / "claim.key").write_text(made["keyPair"]["PrivateKey"])
        broker = urllib.request.urlopen(f"{API}/_ministack/iot/ca.pem").read()
        (folder / "broker.pem").write_bytes(broker)
        self.answer, self.arrived = None, threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="claim")
        self.client.tls_set(str(folder / "broker.pem"), str(folder / "claim.pem"), str(folder / "claim.key"))
        self.client.on_message = self.on_message
        self.client.on_subscribe = lambda *_: self.arrived.set()
        self.client.connect("localhost", MQTT_PORT)
        self.client.loop_start()

    def on_message(self, _client, _data, message):
        self.answer = (message.topic.rsplit("/", 1)[1], json.loads(message.payload))
        self.arrived.set()

    def wait(self):
        if not self.arrived.wait(30):
            raise SystemExit("no answer over MQTT")
        self.arrived.clear()

    def ask(self, topic, body):
        self.arrived.clear()
        self.client.subscribe([(f"{topic}/accepted", 1), (f"{topic}/rejected", 1)])
        self.wait()
        self.client.publish(topic, json.dumps(body), qos=1)
        self.wait()
        verdict, answer = self.answer
        if verdict != "accepted":
            raise SystemExit(f"{topic}: {answer}")
        return answer


def judge(iot, claim, bundle, number):
    template = json.loads((bundle / "template.json").read_text())
    jitp = copy.deepcopy(template)
    # These two are the platform's own in JITP and in fleet provisioning: there is no certificate yet that could be given.
    jitp["Parameters"]["AWS::IoT::Certificate::Id"] = {"Type": "String"}
    jitp["Resources"]["certificate"]["Properties"] = {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}
    for name in ("CertificatePem", "CACertificatePem"):
        del jitp["Parameters"][name]
    body = json.dumps(jitp)
    iot.create_provisioning_template(
        templateName=f"jitp-{number}", templateBody=body, provisioningRoleArn=ROLE, enabled=True, type="JITP"
    )
    fleet = copy.deepcopy(jitp)
    iot.create_provisioning_template(
        templateName=f"fleet-{number}", templateBody=json.dumps(fleet), provisioningRoleArn=ROLE, enabled=True
    )
    things = {}
    for file in sorted(bundle.glob("data-*.jsonl")):
        for line in file.read_text().splitlines():
            parameters = json.loads(line)
            leaf, ca = parameters.pop("CertificatePem"), parameters.pop("CACertificatePem")
            created = claim.ask("$aws/certificates/create/json", {})
            given = {"certificateOwnershipToken": created["certificateOwnershipToken"], "parameters": parameters}
            thing = claim.ask(f"$aws/provisioning-templates/fleet-{number}/provision/json", given)["thingName"]
            registered = iot.register_certificate(certificatePem=leaf, caCertificatePem=ca, status="ACTIVE")
            import ssl

            digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(leaf)).hexdigest()
            if registered["certificateId"] != digest:
                raise SystemExit(f"{thing}: the certificate id is not SHA-256 of the certificate")
            iot.attach_thing_principal(thingName=thing, principal=registered["certificateArn"])
            policies = iot.list_attached_policies(target=created_arn(iot, created))["policies"]
            described = iot.describe_thing(thingName=thing)
            things[thing] = {
                "attributes": described["attributes"],
                "type": described.get("thingTypeName"),
                "groups": [group["groupName"] for group in iot.list_thing_groups_for_thing(thingName=thing)["thingGroups"]],
                "policies": [policy["policyName"] for policy in policies],
            }
    return things


def created_arn(iot, created):
    return iot.describe_certificate(certificateId=created["certificateId"])["certificateDescription"]["certificateArn"]


def register_cas(iot, bundle):
    for file in (bundle / "issuers").iterdir():
        # The issuing CA alone, as the platform wants it.
        issuing = file.read_text().split("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
        try:
            iot.register_ca_certificate(caCertificate=issuing, certificateMode="SNI_ONLY", setAsActive=True)
        except iot.exceptions.ResourceAlreadyExistsException:
            pass


def main(bundles):
    import boto3

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        process = emulator(folder)
        try:
            iot = boto3.client(
                "iot", endpoint_url=API, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
            )
            claim = Claim(iot, folder)
            document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
            iot.create_policy(policyName="device-policy", policyDocument=json.dumps(document))
            iot.create_thing_type(thingTypeName="sensor")
            iot.create_thing_group(thingGroupName="line-1")
            found = []
            for number, bundle in enumerate(map(pathlib.Path, bundles)):
                register_cas(iot, bundle)
                found.append(judge(iot, claim, bundle, number))
            json.dump(found, sys.stdout)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
