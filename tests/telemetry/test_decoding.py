"""A type that several threads are the first to read."""

import subprocess
import sys

import pytest

READ = """
import sys, threading
import msgspec
from edgeml import decoding

sys.setswitchinterval(1e-6)
leaves = [(f"x{number}", int) for number in range(20)]
values = {name: 1 for name, _ in leaves}
document = {"schema": 1, "fields": [{"name": "a", "inner": values}] * 3}
gate = threading.Barrier(8)
failures = []

def read(kind):
    gate.wait()
    try:
        found = READER
        assert found.fields[2].inner.x19 == 1
    except BaseException as error:
        failures.append(error)

for _ in range(100):
    inner = msgspec.defstruct("Inner", leaves)
    field = msgspec.defstruct("Field", [("name", str), ("inner", inner)])
    whole = msgspec.defstruct("Whole", [("schema", int), ("fields", list[field])])
    threads = [threading.Thread(target=read, args=(whole,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
assert not failures, failures[0]
"""


@pytest.mark.parametrize(
    "reader",
    [
        "decoding.from_json(msgspec.json.encode(document), kind)",
        "decoding.from_msgpack(msgspec.msgpack.encode(document), kind)",
        "decoding.from_plain(document, kind)",
    ],
)
def test_threads_that_are_the_first_to_read_a_type_all_read_it(reader: str):
    code = READ.replace("READER", reader)
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr


def test_what_cannot_be_read_is_said_as_msgspec_does():
    import msgspec

    from edgeml.decoding import from_json, from_toml

    with pytest.raises(msgspec.ValidationError, match="Expected `int`, got `str`"):
        from_json(b'{"a": "b"}', dict[str, int])
    with pytest.raises(msgspec.DecodeError):
        from_toml("a = ", dict[str, int])
