"""Prints a Helm setting PATH=null for each of the chart's own values."""

import json
import sys

import yaml


def nulls(values, schema, definitions, path=()):
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    for key, value in values.items():
        # What is below the chart's own keys is Kubernetes': there null takes a default away, as it should.
        if key in schema.get("properties", {}):
            yield ".".join((*path, key)) + "=null"
            if isinstance(value, dict):
                yield from nulls(value, schema["properties"][key], definitions, (*path, key))


if __name__ == "__main__":
    with open(f"{sys.argv[1]}/values.yaml") as values, open(f"{sys.argv[1]}/values.schema.json") as schema:
        schema = json.load(schema)
        print(*nulls(yaml.safe_load(values), schema, schema["definitions"]), sep="\n")
