"""The programs, one for each driver: how each is prepared, started and named."""
import dataclasses
import os
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent


def run(*command, **kwargs):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **kwargs)
    if done.returncode != 0:
        raise SystemExit(f"drivers: {' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


@dataclasses.dataclass
class Program:
    name: str
    driver: str  # as its users call it
    package: str = ""  # Debian's, whose version is reported
    command: tuple = ()
    variants: tuple = ("",)
    environment: dict = dataclasses.field(default_factory=dict)

    def label(self, variant):
        return f"{self.name}/{variant}" if variant else self.name

    def prepare(self, build):
        """Compiles into the directory `build`, where there is something to compile."""

    def version(self):
        if not self.package:
            return ""
        return run("dpkg-query", "-W", "-f=${Version}", self.package)


class Python(Program):
    def __init__(self, name, driver, package="", variants=("",)):
        super().__init__(name, driver, package, ("/usr/bin/python3", f"python/drive_{name}.py"), variants)


PROGRAMS = [
    Python("raw", "raw protocol 3.0"),
    Python("psycopg2", "psycopg2 (Python)", "python3-psycopg2"),
]
