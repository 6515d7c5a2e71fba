"""The programs, one for each driver: how each is prepared, started and named."""
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
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


class Node(Program):
    """npm's packages go below build/, keyed by the lock file."""

    def __init__(self, name, driver, module):
        super().__init__(name, driver, "", ("node", f"node/drive_{name}.js"))
        self.module = module

    def prepare(self, build):
        lock = (HERE / "node/package-lock.json").read_bytes()
        where = HERE.parent.parent / "build/drivers-node" / hashlib.sha256(lock).hexdigest()[:16]
        if not (where / "done").exists():
            where.mkdir(parents=True, exist_ok=True)
            for file in ("package.json", "package-lock.json"):
                shutil.copy(HERE / "node" / file, where)
            run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=where)
            (where / "done").touch()
        self.modules = where / "node_modules"
        self.environment = {"NODE_PATH": str(self.modules)}

    def version(self):
        return json.loads((self.modules / self.module / "package.json").read_text())["version"]


class Java(Program):
    def prepare(self, build):
        jar = "/usr/share/java/postgresql.jar"
        run("javac", "-cp", jar, "-d", build, HERE / "java/DriveJdbc.java")
        self.command = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8",
                        "-cp", f"{jar}:{build}", "DriveJdbc")


class Go(Program):
    def prepare(self, build):
        """Debian's packages are sources below /usr/share/gocode: no modules, nothing from the network."""
        binary = build / self.name
        run("go", "build", "-o", binary, "checks.go", f"drive_{self.name}.go", cwd=HERE / "go",
            env={**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "-p=2",
                 "GOCACHE": str(HERE.parent.parent / "build/drivers-go")})
        self.command = (str(binary),)


class Cpp(Program):
    def prepare(self, build):
        run("g++", "-std=c++17", "-O1", HERE / f"cpp/drive_{self.name}.cc", "-o", build / self.name, "-lpqxx", "-lpq", "-pthread")
        self.command = (str(build / self.name),)


PROGRAMS = [
    Python("raw", "raw protocol 3.0"),
    Python("tools", "pgbench, pg_dump, pg_restore, psql", "postgresql-client-15"),
    Python("psycopg2", "psycopg2 (Python)", "python3-psycopg2"),
    Python("psycopg3", "psycopg 3 (Python)", "python3-psycopg"),
    Python("asyncpg", "asyncpg (Python)", "python3-asyncpg"),
    Python("odbc", "psqlODBC (pyodbc)", "odbc-postgresql", ("server", "client")),
    Java("jdbc", "pgJDBC", "libpostgresql-jdbc-java",
         variants=("", "threshold1", "simple", "extendedForPrepared", "extendedCacheEverything")),
    Program("pdo", "PDO_PGSQL (PHP)", "php-pgsql", ("php", "php/drive_pdo.php"), ("", "emulate", "noprepare")),
    Program("ruby", "pg (Ruby)", "ruby-pg", ("ruby", "ruby/drive_pg.rb")),
    Program("dbd", "DBD::Pg (Perl)", "libdbd-pg-perl", ("/usr/bin/perl", "perl/drive_dbd.pl"), ("", "client")),
    Cpp("pqxx", "libpqxx (C++)", "libpqxx-dev"),
    Go("pq", "lib/pq (Go)", "golang-github-lib-pq-dev", variants=("", "binary")),
    Go("pgx", "pgx v4 (Go)", "golang-github-jackc-pgx-v4-dev", variants=("", "describe")),
    Node("pg", "pg (Node.js)", "pg"),
    Node("postgres", "postgres (Node.js)", "postgres"),
    Node("orm", "Sequelize, Knex, Drizzle (Node.js)", "sequelize"),
]
