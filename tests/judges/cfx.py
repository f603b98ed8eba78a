#!/usr/bin/env python3
"""Validates CFX messages, one JSON object a line on standard input, with the schemas of tests/fixtures/cfx.

Prints how many messages of each name there were, as JSON; ends with 1 at the first that is not valid, or of an unknown name.
"""

import collections
import json
import pathlib
import sys

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "cfx"


def main() -> int:
    schemas = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
    registry = Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema)) for schema in schemas.values()
    )
    validators = {}
    for name, schema in schemas.items():
        Draft202012Validator.check_schema(schema)
        validators[name] = Draft202012Validator(schema, registry=registry)
    counts: collections.Counter[str] = collections.Counter()
    for number, line in enumerate(sys.stdin, 1):
        message = json.loads(line)
        name = message.get("MessageName")
        if name not in validators:
            print(f"line {number}: no message is called {name!r}", file=sys.stderr)
            return 1
        errors = sorted(validators[name].iter_errors(message), key=str)
        if errors:
            print(f"line {number}, {name}: {errors[0].json_path}: {errors[0].message}\n{line}", file=sys.stderr)
            return 1
        counts[name] += 1
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
