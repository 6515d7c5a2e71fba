"""What the Python programs share. A check is a function below @check; it fails by raising.

For each check two lines of JSON go to standard output: {"begin": name} before it, so that the runner
knows what hung, and {"check": name, "ok": bool, "error": text or null} after it.
"""
import json
import os
import threading
import time

HOST = os.environ["DRIVER_HOST"]
PORT = int(os.environ["DRIVER_PORT"])
USER = os.environ["DRIVER_USER"]
PASSWORD = os.environ["DRIVER_PASSWORD"]
DATABASE = os.environ["DRIVER_DATABASE"]
MODE = os.environ["DRIVER_MODE"]  # direct, session, transaction
VARIANT = os.environ.get("DRIVER_VARIANT", "")
TRANSACTION_MODE = MODE == "transaction"

# Settings that one client changes and no other may ever see.
LEAKY = {
    "application_name": "'leaky'", "timezone": "'Asia/Tokyo'", "datestyle": "'German'",
    "search_path": "'pg_catalog'", "statement_timeout": "12345", "lock_timeout": "23456",
    "work_mem": "'7MB'", "client_min_messages": "'error'", "extra_float_digits": "-3",
    "standard_conforming_strings": "off", "bytea_output": "'escape'", "intervalstyle": "'iso_8601'",
    "default_transaction_isolation": "'serializable'", "default_transaction_read_only": "on",
    "my.setting": "'secret'",
}
SHOW_LEAKY = "select " + ", ".join(f"coalesce(current_setting('{name}', true), '')" for name in LEAKY)

_checks = []


def check(function):
    _checks.append(function)
    return function


def equal(got, want, what="value"):
    if got != want:
        raise AssertionError(f"{what}: got {brief(got)}, want {brief(want)}")


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def brief(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


def raises(kind, action, *arguments):
    """The error of that class that action() must raise."""
    try:
        got = action(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} but {brief(got)}")


def in_threads(count, action):
    """action(0) ... action(count - 1) at once; the first error is raised here."""
    errors = []

    def guarded(i):
        try:
            action(i)
        except BaseException as error:  # pylint: disable=broad-except
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        expect(not thread.is_alive(), "a thread hangs")
    if errors:
        raise errors[0]


def until(predicate, what, timeout=5.0):
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        expect(time.monotonic() < deadline, f"not within {timeout} s: {what}")
        time.sleep(0.01)
    return value


def main():
    only = set(filter(None, os.environ.get("DRIVER_ONLY", "").split(",")))
    skip = set(filter(None, os.environ.get("DRIVER_SKIP", "").split(",")))
    for function in _checks:
        name = function.__name__
        if name in skip or (only and name not in only):
            continue
        print(json.dumps({"begin": name}), flush=True)
        error = None
        try:
            function()
        except Exception as caught:  # pylint: disable=broad-except
            error = f"{type(caught).__name__}: {caught}".strip()
        print(json.dumps({"check": name, "ok": error is None, "error": error}), flush=True)
