"""The JSON that the program writes, checked against docs/schemas."""

import functools
import json
import pathlib

import jsonschema

NAMES = ("run.json", "status.json", "timing.json", "report.json", "meta.json")  # in directories that the program fills


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


def parse(text):
    return json.loads(text, parse_constant=refuse)


@functools.cache
def all_schemas(directory):
    return {path.as_uri(): parse(path.read_text()) for path in sorted(pathlib.Path(directory).resolve().glob("*.json"))}


@functools.cache
def validator(directory, schema):
    path = pathlib.Path(directory).resolve() / f"{schema}.json"
    if not path.is_file():
        raise AssertionError(f"there is no schema {path}")
    store = all_schemas(directory)
    uri = path.as_uri()
    return jsonschema.Draft202012Validator(store[uri], resolver=jsonschema.RefResolver(uri, store[uri], store=store))


def problem(directory, document):
    """Why a document is not what its schema describes; None: it is."""
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str):
        return f"no member 'schema' in {str(document)[:200]}"
    error = jsonschema.exceptions.best_match(validator(str(directory), schema).iter_errors(document))
    return error and f"{schema}: {'/'.join(map(str, error.absolute_path))}: {error.message[:500]}"


def require(directory, document):
    found = problem(directory, document)
    if found:
        raise AssertionError(found)


def versions(directory):
    """What tells whether the files in a directory of results are the same as before."""
    found = {}
    for name in NAMES:
        try:
            facts = (pathlib.Path(directory) / name).stat()
        except OSError:
            continue
        found[name] = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
    return found
