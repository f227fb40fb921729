"""A project of Google Cloud as far as deploy/ speaks to it: ``gcloud``, ``docker``, ``curl`` and ``psql`` on a PATH.

The four are a few lines of bash that pass on what they are called with, and ``Project`` answers, plays on its state and
notes the call. It knows the commands and options of gcloud that deploy/ uses, as
https://docs.cloud.google.com/sdk/gcloud/reference has them, and refuses all others.
"""

import copy
import json
import re
import socketserver
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
EVERYWHERE = {"--project", "--quiet", "--format"}
BINDING = {"--role", "--member"}
JOB = {
    *("--location", "--schedule", "--uri", "--http-method", "--attempt-deadline"),
    *("--oidc-service-account-email", "--oidc-token-audience"),
}
COMMANDS: dict[str, set[str]] = {
    "projects describe": set(),
    "projects add-iam-policy-binding": BINDING | {"--condition"},
    "services enable": set(),
    "artifacts repositories describe": {"--location"},
    "artifacts repositories create": {"--location", "--repository-format", "--description"},
    "artifacts repositories set-cleanup-policies": {"--location", "--policy", "--no-dry-run"},
    "artifacts repositories add-iam-policy-binding": BINDING | {"--location"},
    "storage buckets describe": set(),
    "storage buckets create": {"--location", "--uniform-bucket-level-access", "--public-access-prevention"},
    "storage buckets update": {"--clear-soft-delete", "--cors-file", "--lifecycle-file"},
    "storage buckets add-iam-policy-binding": BINDING,
    "secrets describe": set(),
    "secrets create": {"--replication-policy"},
    "secrets versions list": {"--filter", "--limit"},
    "secrets versions add": {"--data-file"},
    "secrets add-iam-policy-binding": BINDING,
    "iam service-accounts describe": set(),
    "iam service-accounts create": {"--display-name"},
    "iam service-accounts add-iam-policy-binding": BINDING,
    "scheduler jobs describe": {"--location"},
    "scheduler jobs create http": JOB,
    "scheduler jobs update http": JOB,
    "run services list": {"--region", "--filter"},
    "run services update-traffic": {"--region", "--to-latest"},
    "run deploy": {
        *("--region", "--image", "--tag", "--no-traffic", "--service-account", "--no-invoker-iam-check", "--ingress"),
        *("--set-env-vars", "--set-secrets", "--execution-environment", "--cpu", "--memory", "--no-cpu-throttling"),
        *("--cpu-boost", "--concurrency", "--min", "--max-instances", "--timeout", "--port", "--use-http2"),
        *("--no-use-http2", "--startup-probe", "--liveness-probe"),
    },
}
# Listed before they could be missing: ``describe`` answers by its exit status whether there is one.
KINDS = {"repositories": "repositories", "buckets": "buckets", "secrets": "secrets", "jobs": "jobs"}


# What is not gcloud's "-" has nothing to read. A refusal goes to stderr, an answer to stdout.
PROGRAM = """#!/bin/bash
given=
[[ " $* " != *" --data-file=- "* ]] || given=$(cat)
exec 3<>/dev/tcp/127.0.0.1/PORT
printf '%s\\0' "$(($# + 1))" "${0##*/}" "$@" "$given" >&3
read -r status <&3
if [ "$status" = 0 ]; then cat <&3; else cat <&3 >&2; fi
exit "$status"
"""


@dataclass
class Ran:
    status: int
    said: str


class Project:
    """``state`` is what there is; ``calls`` what was called, in order."""

    def __init__(self, folder: Path, state: dict[str, Any] | None = None) -> None:
        self.state: Any = copy.deepcopy(state) if state else _empty()
        self.calls: list[list[str]] = []
        self._programs = folder / "bin"

    def __enter__(self) -> Self:
        project = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                count = int(self._word())
                call = [self._word() for _ in range(count)]
                status, said = project._answer(call, self._word())
                self.wfile.write(f"{status}\n{said}".encode())

            def _word(self) -> str:
                word = b""
                while not word.endswith(b"\0"):
                    word += self.rfile.read(1)
                return word[:-1].decode()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self._programs.mkdir(parents=True)
        for name in ("gcloud", "docker", "curl", "psql"):
            program = self._programs / name
            program.write_text(PROGRAM.replace("PORT", str(self._server.server_address[1])))
            program.chmod(0o755)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def called(self, *start: str) -> list[list[str]]:
        return [call for call in self.calls if call[: len(start)] == [*start]]

    def _answer(self, call: list[str], given: str) -> tuple[int, str]:
        self.calls.append(call)
        program, *arguments = call
        try:
            if any(text in " ".join(call) for text in self.state["failing"]):
                raise Refused("it failed")
            match program:
                case "gcloud":
                    answer = gcloud(self.state, arguments, given)
                case "docker":
                    answer = docker(self.state, arguments)
                case "curl":
                    answer = curl(self.state, arguments)
                case _:
                    answer = ""
        except Refused as refusal:
            return 1, f"{program}: {refusal}\n"
        return 0, f"{answer}\n" if answer else ""

    def run(self, *command: str, **environment: str) -> Ran:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={"PATH": f"{self._programs}:/usr/bin:/bin"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return Ran(done.returncode, done.stdout)

    def build(self, config: dict[str, Any], **given: str) -> Ran:
        """Run the steps one after the other, as Cloud Build would if it had one hand; the first failure ends it."""
        values = {"PROJECT_ID": "my-project", "PROJECT_NUMBER": "123456789012", "BUILD_ID": "6f0c-build"}
        values |= {"COMMIT_SHA": "", **config["substitutions"], **given}
        assert given.keys() <= values.keys(), "Cloud Build knows no such substitution"

        def expand(text: str) -> str:
            return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: values[found[1] or found[2]], text)

        common = dict(expand(pair).split("=", 1) for pair in config["options"]["env"])
        secret = {
            one["env"]: expand(one["versionName"]).split("/")[3] for one in config["availableSecrets"]["secretManager"]
        }
        said = ""
        for step in config["steps"]:
            environment = dict(common)
            for name in step.get("secretEnv", []):
                versions = self.state["secrets"].get(secret[name])
                if not versions:
                    return Ran(1, f"{said}there is no secret {secret[name]}")
                environment[name] = versions[-1]
            ran = self.run(step["entrypoint"], *map(expand, step["args"]), **environment)
            said += ran.said
            if ran.status:
                return Ran(ran.status, said)
        return Ran(0, said)


def _empty() -> dict[str, Any]:
    return {
        "repositories": {},
        "buckets": {},
        "secrets": {},
        "accounts": [],
        "unknown_for": 0,  # so many bindings of accounts fail, as a new one is not known everywhere
        "jobs": {},
        "bindings": [],
        "apis": [],
        "services": {},
        "built": [],
        "pushed": [],
        "ill": {},  # service → path that answers 503
        "failing": [],  # what a call contains that fails
    }


class Refused(Exception):
    pass


def _options(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    words, options = [], {}
    for argument in arguments:
        if argument.startswith("--"):
            name, _, value = argument.partition("=")
            options[name] = value
        else:
            words.append(argument)
    return words, options


def gcloud(state: Any, arguments: list[str], given: str) -> str:
    words, options = _options(arguments)
    for length in range(len(words), 0, -1):
        command = " ".join(words[:length])
        if command in COMMANDS:
            break
    else:
        raise Refused(f"Invalid choice: {' '.join(words)}")
    unknown = options.keys() - COMMANDS[command] - EVERYWHERE
    if unknown:
        raise Refused(f"unrecognized arguments: {unknown}")
    if command != "projects describe" and options.get("--project") != "my-project":
        raise Refused("of which project?")
    names = words[length:]
    if command.endswith("add-iam-policy-binding"):
        return _bind(state, command, names[0], options)
    match command:
        case "projects describe":
            if names != ["my-project"]:
                raise Refused("no such project, or not for you")
            return "123456789012"
        case "services enable":
            state["apis"] = sorted({*state["apis"], *names})
        case "secrets versions list":
            return f"projects/1/secrets/{names[0]}/versions/1" if state["secrets"][names[0]] else ""
        case "secrets versions add":
            if not given:
                raise Refused("a secret's value cannot be empty")
            state["secrets"][names[0]].append(given)
        case "iam service-accounts describe":
            if names[0] not in state["accounts"]:
                raise Refused("NOT_FOUND")
        case "iam service-accounts create":
            _add(state["accounts"], f"{names[0]}@my-project.iam.gserviceaccount.com")
        case "artifacts repositories set-cleanup-policies":
            state["repositories"][names[0]] = json.loads((ROOT / options["--policy"]).read_text())
        case "storage buckets update":
            files = [json.loads((ROOT / options[name]).read_text()) for name in ("--cors-file", "--lifecycle-file")]
            state["buckets"][names[0]] = files
        case "scheduler jobs create http" | "scheduler jobs update http":
            if (names[0] in state["jobs"]) != ("update" in command):
                raise Refused("ALREADY_EXISTS, or NOT_FOUND")
            if options["--oidc-service-account-email"] not in state["accounts"]:
                raise Refused("no such account")
            state["jobs"][names[0]] = options
        case "run services list":
            service = state["services"].get(options["--filter"].removeprefix("metadata.name="))
            return service["ready"] if service else ""
        case "run services update-traffic":
            state["services"][names[0]]["serving"] = "LATEST"
        case "run deploy":
            return _deploy(state, names[0], options)
        case _:
            group = words[length - 2]
            things = state[KINDS[group]]
            if words[length - 1] == "describe":
                if names[0] not in things:
                    raise Refused("NOT_FOUND")
            elif names[0] in things:
                raise Refused("ALREADY_EXISTS")
            else:
                things[names[0]] = []
    return ""


def _add(things: list[str], name: str) -> None:
    if name in things:
        raise Refused("ALREADY_EXISTS")
    things.append(name)


def _bind(state: Any, command: str, resource: str, options: dict[str, str]) -> str:
    if state["unknown_for"]:
        state["unknown_for"] -= 1
        raise Refused("the account does not exist")
    if options["--member"].removeprefix("serviceAccount:") not in state["accounts"]:
        raise Refused("no such account")
    binding = [command.rsplit(" ", 1)[0], resource, options["--role"], options["--member"]]
    if binding not in state["bindings"]:
        state["bindings"].append(binding)
    return ""


def _deploy(state: Any, name: str, options: dict[str, str]) -> str:
    service = state["services"].get(name)
    if service is None and "--no-traffic" in options:
        raise Refused("--no-traffic not supported when creating a new service.")
    if options["--image"] not in state["pushed"]:
        raise Refused("there is no such image")
    if options["--service-account"] not in state["accounts"]:
        raise Refused("no such account")
    for pair in options["--set-secrets"].split(","):
        secret, version = pair.split("=", 1)[1].split(":")
        versions = state["secrets"].get(secret, [])
        if not versions or (version != "latest" and int(version) > len(versions)):
            raise Refused(f"no such secret: {secret}:{version}")
    service = service or {"revisions": [], "ready": "", "serving": "LATEST", "candidate": ""}
    state["services"][name] = service
    if "--no-traffic" in options and service["serving"] == "LATEST":
        service["serving"] = service["ready"]
    revision = f"{name}-{len(service['revisions']) + 1:05}"
    service["revisions"].append(options)
    if state["ill"].get(name) == "start":
        raise Refused("the container failed the startup probe")
    service["ready"] = revision
    if options.get("--tag"):
        service["candidate"] = revision
    return ""


def docker(state: Any, arguments: list[str]) -> str:
    if arguments[0] == "push":
        if arguments[1] not in state["built"]:
            raise Refused("no such image")
        state["pushed"] = sorted({*state["pushed"], arguments[1]})
        return ""
    assert arguments[0] == "build"
    assert arguments[-1] == "."
    for name, value in pairwise(arguments):
        if name == "--tag":
            state["built"].append(value)
        if name == "--file" and not (ROOT / value).is_file():
            raise Refused("no such Dockerfile")
    return ""


def curl(state: Any, arguments: list[str]) -> str:
    (url,) = [argument for argument in arguments if argument.startswith("https://")]
    found = re.fullmatch(r"https://candidate---([a-z-]+)-123456789012\.[a-z0-9-]+\.run\.app(/.*)", url)
    if not found or not state["services"].get(found[1], {}).get("candidate"):
        raise Refused(f"nobody answers at {url}")
    if state["ill"].get(found[1]) == found[2]:
        raise Refused('{"message":"Not ready: database."}')
    return '{"status":"ok"}'
