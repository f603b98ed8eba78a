"""Does what grpcurl does: uses the daemon knowing nothing of it but gRPC server reflection, v1 and v1alpha.

    reflect.py --server HOST:PORT --identity DIR

Lists the services, describes birthmark.v1.Issuance, calls GetIssuer with messages built from the reflected
descriptors, checks that Python's own reflection client (v1alpha) finds the details of errors, and that grpc.health.v1
says SERVING. Exits non-zero at the first thing that is not so.
"""

import argparse
import sys
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from identity import connect

SERVICE = "birthmark.v1.Issuance"

# The v1 protocol has the same messages as v1alpha, whose generated code grpcio-reflection ships; only the name of
# the service differs.
METHOD = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


class Reflection:
    """A server's descriptors, fetched as they are needed."""

    def __init__(self, channel: grpc.Channel):
        from grpc_reflection.v1alpha import reflection_pb2

        self.messages = reflection_pb2
        self.call = channel.stream_stream(
            METHOD,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        self.pool = descriptor_pool.DescriptorPool()
        self.added: set[str] = set()

    def ask(self, **question):
        request = self.messages.ServerReflectionRequest(**question)
        response = next(self.call(iter([request]), timeout=10))
        if response.WhichOneof("message_response") == "error_response":
            sys.exit(f"reflect.py: {question}: {response.error_response.error_message}")
        return response

    def services(self) -> list[str]:
        return sorted(service.name for service in self.ask(list_services="").list_services_response.service)

    def service(self, name: str):
        self.add(self.ask(file_containing_symbol=name))
        return self.pool.FindServiceByName(name)

    def add(self, response) -> None:
        """Adds the files of a response, each after the files that it imports."""
        files = {}
        for content in response.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(content)
            files[file.name] = file
        for file in files.values():
            self.add_file(file, files)

    def add_file(self, file, files: dict) -> None:
        if file.name in self.added:
            return
        self.added.add(file.name)
        for name in file.dependency:
            if name in files:
                self.add_file(files[name], files)
            elif name not in self.added:
                self.add(self.ask(file_by_filename=name))
        self.pool.Add(file)


def describe(service) -> None:
    print(f"service {service.full_name} {{")
    for method in service.methods:
        given = ("stream " if method.client_streaming else "") + method.input_type.full_name
        got = ("stream " if method.server_streaming else "") + method.output_type.full_name
        print(f"  rpc {method.name}({given}) returns ({got});")
    print("}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.add_argument("--identity", required=True, type=Path, metavar="DIR", help="cert.pem, key.pem, ca.pem")
    arguments = parser.parse_args()

    channel = connect(arguments.server, arguments.identity)
    reflection = Reflection(channel)
    services = reflection.services()
    print("services:", *services)
    if SERVICE not in services:
        sys.exit(f"reflect.py: {SERVICE} is not listed")

    service = reflection.service(SERVICE)
    describe(service)
    methods = {method.name: method for method in service.methods}
    issue = methods["Issue"]
    if not (issue.client_streaming and issue.server_streaming):
        sys.exit("reflect.py: Issue does not stream both ways")

    method = methods["GetIssuer"]
    request, reply = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
    call = channel.unary_unary(
        f"/{SERVICE}/{method.name}", request_serializer=request.SerializeToString, response_deserializer=reply.FromString
    )
    answer = call(request(), timeout=10)
    print("GetIssuer:", json_format.MessageToJson(answer, indent=None, descriptor_pool=reflection.pool))
    if not answer.issuers or not answer.issuers[0].chain:
        sys.exit("reflect.py: GetIssuer names no issuer with a chain")

    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    pool.FindServiceByName(SERVICE)
    for name in ("google.rpc.ErrorInfo", "google.rpc.RetryInfo"):
        print("v1alpha:", name, *sorted(pool.FindMessageTypeByName(name).fields_by_name))

    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        status = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
        if status != health_pb2.HealthCheckResponse.SERVING:
            word = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
            sys.exit(f"reflect.py: the health of '{name}' is {word}, not SERVING")
    print("health: SERVING")


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as failure:
        sys.exit(f"reflect.py: {failure.code().name}: {failure.details()}")
