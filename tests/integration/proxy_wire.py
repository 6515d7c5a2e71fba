"""The raw protocol client of tests/drivers, for any port."""

import os
import pathlib
import sys

from proxy_support import PASSWORD

os.environ.update(DRIVER_HOST="127.0.0.1", DRIVER_PORT="0", DRIVER_USER="app",
                  DRIVER_PASSWORD=PASSWORD, DRIVER_DATABASE="postgres", DRIVER_MODE="transaction")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "drivers/python"))

import wire  # noqa: E402
from wire import (COPY_DONE, FLUSH, SYNC, TERMINATE, bind, close, copy_data, describe,  # noqa: E402,F401
                  execute, fields_of, message, parse, query, row_of)


def connect(port, **parameters):
    wire.PORT = port
    return wire.Wire(**parameters)


def codes(answer):
    """Types of messages; of errors the SQLSTATE, of ReadyForQuery the status: "1 2 E(22012) Z(I)"."""
    out = []
    for kind, body in answer:
        if kind == "E":
            kind = f"E({fields_of(body)['C']})"
        elif kind == "Z":
            kind = f"Z({body.decode()})"
        out.append(kind)
    return " ".join(out)
