"""PostgreSQL of other major versions than Debian 12's, from the Debian that has them.

Downloaded by apt with a state of its own, so that the machine's packages stay what they are, and unpacked below build/ with the
libraries they were linked with: patchelf has the programs use those. Everything of PostgreSQL is there, also pg_basebackup, pg_rewind.
"""
import os
import pathlib
import shutil
import subprocess

SUITES = {13: "bullseye", 17: "trixie", 18: "forky"}
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
PREFIX = pathlib.Path(__file__).resolve().parents[2] / "build/postgresql"


class Unavailable(Exception):
    """It can't be had here; says why."""


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300, **options)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(map(str, command))}: {done.stderr.strip()[-500:]}")
    return done.stdout


def bin_dir(version):
    """Where postgres, initdb and all the others of this version are; fetched the first time."""
    debian = pathlib.Path(f"/usr/lib/postgresql/{version}/bin")
    if (debian / "postgres").exists():
        return debian
    if version not in SUITES:
        raise Unavailable(f"no Debian has PostgreSQL {version}")
    home = PREFIX / str(version)
    found = home / f"usr/lib/postgresql/{version}/bin"
    if not (home / "done").exists():
        shutil.rmtree(home, ignore_errors=True)
        try:
            fetch(version, home)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(str(error)) from error
        (home / "done").touch()
    return found


def fetch(version, home):
    if not shutil.which("patchelf"):
        raise Unavailable("patchelf is not installed (./dev setup --all)")
    state = home / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {SUITES[version]} main\n")
    apt = ["apt-get", "-qq", "-o", f"Dir::Etc::sourcelist={state}/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null",
           "-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::State::status={state}/status",
           "-o", f"Dir::Cache={state}/cache", "-o", "Debug::NoLocking=1"]
    if os.geteuid() == 0:
        apt += ["-o", "APT::Sandbox::User=root"]
    run(*apt, "update")
    plan = run(*apt, "install", "--simulate", "--no-install-recommends", f"postgresql-{version}")
    packages = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    run(*apt, "download", *filter(needed, packages), cwd=state)
    for package in state.glob("*.deb"):
        run("dpkg-deb", "--extract", package, home)
    shutil.rmtree(state)
    (home / f"usr/lib/postgresql/{version}/lib/llvmjit.so").unlink()  # without LLVM no server would run what it wants to compile
    use_own_libraries(home, home / f"usr/lib/postgresql/{version}/bin")


def needed(package):
    """Of what apt would install: the server, its programs and the libraries they are linked with."""
    libraries = package.startswith("lib") and not any(word in package for word in ("perl", "llvm", "z3", "debconf", "pam-modules"))
    return libraries or package.startswith("postgresql-") and "common" not in package


def use_own_libraries(home, programs):
    loader = next(path for folder in ("usr/lib64", "lib64", LIBRARIES, "lib/x86_64-linux-gnu")
                  for path in (home / folder).glob("ld-linux-x86-64.so.2"))
    folders = ":".join(str(home / folder) for folder in (LIBRARIES, "lib/x86_64-linux-gnu"))
    for program in programs.iterdir():
        with program.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        # RPATH, which holds for what is loaded later too: extensions and their libraries.
        run("patchelf", "--set-interpreter", loader, "--force-rpath", "--set-rpath", folders, program)
