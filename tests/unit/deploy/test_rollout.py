"""A project is prepared and built: what happens in which order, and where the traffic stays when something fails."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from standins.gcloud import ROOT, Project
from unit.deploy.conftest import GIVEN, NAMES, SECRETS, deployed, environment, options, prepare

REGISTRY = "europe-west3-docker.pkg.dev/my-project/short-video"
LEAST = {
    ("projects", "my-project", "roles/run.admin", "build"),
    ("projects", "my-project", "roles/logging.logWriter", "build"),
    ("artifacts repositories", "short-video", "roles/artifactregistry.writer", "build"),
    ("storage buckets", "gs://my-project_cloudbuild", "roles/storage.objectViewer", "build"),
    ("secrets", "short-video-database-url", "roles/secretmanager.secretAccessor", "build"),
    ("storage buckets", "gs://my-project-short-videos", "roles/storage.objectUser", "storage"),
    ("iam service-accounts", "short-video-storage", "roles/iam.serviceAccountTokenCreator", "storage"),
    *(("iam service-accounts", f"short-video-{name}", "roles/iam.serviceAccountUser", "build") for name in NAMES),
    *(("secrets", "short-video-jwt-secret", "roles/secretmanager.secretAccessor", name) for name in NAMES),
    *(("secrets", "short-video-supabase-key", "roles/secretmanager.secretAccessor", name) for name in NAMES),
}


@pytest.fixture
def prepared(ready: Project, tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path, ready.state) as project:
        yield project


@pytest.fixture
def serving(released: Project, tmp_path: Path) -> Iterator[Project]:
    """Everything runs, from a build before."""
    with Project(tmp_path, released.state) as project:
        yield project


def traffic(project: Project) -> dict[str, str]:
    """The revision that serves, by service."""
    services = project.state["services"]
    return {name: one["ready"] if one["serving"] == "LATEST" else one["serving"] for name, one in services.items()}


# ── prepare.sh ──


def test_each_account_may_do_the_least_that_it_needs(prepared: Project) -> None:
    given = {
        (kind, resource.split("@")[0], role, member.removeprefix("serviceAccount:short-video-").split("@")[0])
        for kind, resource, role, member in prepared.state["bindings"]
    }
    assert given == LEAST
    assert len(prepared.state["accounts"]) == len(NAMES) + 2


def test_prepared_again_nothing_is_made_or_changed(prepared: Project) -> None:
    before = deepcopy(prepared.state)
    ran = prepare(prepared, SUPABASE_KEY="another", DATABASE_URL="")
    assert ran.status == 0, ran.said
    assert prepared.state == before
    made = {call[1 + call[1:].index(word)] for call in prepared.calls for word in ("create", "add") if word in call[1:]}
    assert made == set()


def test_no_secret_is_printed_or_an_argument(project: Project) -> None:
    ran = prepare(project)
    assert len(project.state["secrets"]) == 3
    for versions in project.state["secrets"].values():
        (value,) = versions
        assert value == value.strip()
        assert value not in ran.said
        assert value not in json.dumps(project.calls)
    (made,) = project.state["secrets"]["short-video-jwt-secret"]
    assert len(made) >= 64
    assert project.state["secrets"]["short-video-supabase-key"] == [SECRETS["SUPABASE_KEY"]]


@pytest.mark.parametrize("missing", ["SUPABASE_KEY", "DATABASE_URL"])
def test_a_secret_that_is_not_given_is_named_and_nothing_is_put_in_its_place(project: Project, missing: str) -> None:
    ran = prepare(project, **{missing: ""})
    assert ran.status == 1
    assert f"{missing} is missing: set it in the environment" in ran.said
    assert project.state["secrets"][f"short-video-{missing.lower().replace('_', '-')}"] == []
    assert prepare(project).status == 0, "it goes on where it stopped"


def test_a_new_account_is_waited_for(project: Project) -> None:
    project.state["unknown_for"] = 3
    assert prepare(project).status == 0


def test_an_account_that_stays_unknown_ends_it_with_what_to_do(project: Project) -> None:
    project.state["unknown_for"] = 99
    ran = prepare(project)
    assert ran.status == 1
    assert "run this again" in ran.said


@pytest.mark.parametrize(
    ("given", "failing", "advice"),
    [
        ({"PROJECT": ""}, [], "PROJECT is missing"),
        ({"PROJECT": "nobodys"}, [], "gcloud auth login"),
        ({}, ["services enable"], "billing account"),
        ({}, ["buckets create"], "another BUCKET"),
        ({}, ["scheduler jobs create"], "is Cloud Scheduler offered in"),
    ],
)
def test_what_cannot_be_done_says_what_to_do(
    project: Project, given: dict[str, str], failing: list[str], advice: str
) -> None:
    project.state["failing"] = failing
    ran = prepare(project, **given)
    assert ran.status == 1
    assert advice in ran.said


def test_the_bucket_is_as_the_readme_has_it(prepared: Project) -> None:
    folder = ROOT / "storage-service/bucket"
    files = [json.loads((folder / name).read_text()) for name in ("cors.json", "lifecycle.json")]
    assert prepared.state["buckets"]["gs://my-project-short-videos"] == files


def test_it_prints_the_build_to_paste(project: Project, config: Any) -> None:
    said = prepare(project, REGION="us-central1", BUCKET="films").said
    (line,) = [line.strip() for line in said.splitlines() if "gcloud builds submit" in line]
    pairs = line.split('--substitutions="^;^')[1].rstrip('"').split(";")
    given = dict(pair.split("=", 1) for pair in pairs)
    assert given.pop("COMMIT_SHA") == "$(git rev-parse HEAD)"
    assert given.keys() <= config["substitutions"].keys()
    assert (given["_REGION"], given["_BUCKET"]) == ("us-central1", "films")
    assert "NEXT_PUBLIC_VIDEO_SERVICE_URL=https://video-service-123456789012.us-central1.run.app" in said


# ── the build ──


def test_the_first_build_serves_from_nothing(released: Project) -> None:
    calls = [" ".join(call) for call in released.calls]

    def at(pattern: str) -> list[int]:
        found = [number for number, call in enumerate(calls) if re.search(pattern, call)]
        assert found, pattern
        return found

    builds, deploys = at("^docker (build|push)"), at("^gcloud run deploy")
    assert max(builds) < min(at("^psql"))
    assert max(at("^psql")) < min(deploys)
    assert max(deploys) < min(at("^curl"))
    assert max(at("^curl")) < min(at("update-traffic"))
    assert len(deploys) == len(at("update-traffic")) == len(NAMES)
    assert {one["serving"] for one in released.state["services"].values()} == {"LATEST"}
    asked = {re.sub(r".*https://candidate---([a-z]+)-.*app", r"\1", calls[number]) for number in at("^curl")}
    assert asked == {f"{name}{path}" for name in NAMES for path in ("/health", "/ready")}


def test_every_migration_is_applied_in_order_as_one_transaction(released: Project) -> None:
    files = [path.name for path in sorted((ROOT / "supabase/migrations").glob("*.sql"))]
    calls = released.called("psql")
    assert [call[-1].rsplit("/", 1)[1] for call in calls] == files
    assert all("--single-transaction" in call and "ON_ERROR_STOP=1" in call for call in calls)


def test_an_image_is_built_over_the_last_one_and_pushed_by_the_commit(prepared: Project, config: Any) -> None:
    assert prepared.build(config, **GIVEN, COMMIT_SHA="abc123").status == 0
    for name in NAMES:
        image = f"{REGISTRY}/{name}-service"
        builds = [call for call in prepared.called("docker", "build") if f"{image}:cache" in call]
        assert len(builds) == 2
        assert all("BUILDKIT_INLINE_CACHE=1" in call for call in builds)
        assert deployed(prepared, name)["--image"] == f"{image}:abc123"
        assert f"{image}:abc123" in prepared.state["pushed"]


def test_a_build_by_hand_without_a_commit_has_its_own_id_as_the_tag(prepared: Project, config: Any) -> None:
    assert prepared.build(config, **GIVEN, BUILD_ID="by-hand").status == 0
    assert deployed(prepared, "user")["--image"] == f"{REGISTRY}/user-service:by-hand"


def test_a_second_build_gives_new_revisions_no_traffic_until_all_are_well(serving: Project, config: Any) -> None:
    before = traffic(serving)
    ran = serving.build(config, **GIVEN, COMMIT_SHA="after")
    assert ran.status == 0, ran.said
    deploys = serving.called("gcloud", "run", "deploy")
    assert all({"--no-traffic", "--tag"} <= options(call).keys() for call in deploys)
    after = traffic(serving)
    assert all(after[name] != before[name] for name in before)


@pytest.mark.parametrize(
    ("service", "path"),
    [*((f"{name}-service", "/ready") for name in NAMES), ("user-service", "/health"), ("video-service", "start")],
)
def test_one_that_is_not_well_leaves_all_traffic_where_it_was(
    serving: Project, config: Any, service: str, path: str
) -> None:
    before = traffic(serving)
    serving.state["ill"] = {service: path}
    ran = serving.build(config, **GIVEN, COMMIT_SHA="after")
    assert ran.status != 0
    assert traffic(serving) == before
    assert serving.called("gcloud", "run", "services", "update-traffic") == []
    if path != "start":
        assert f"the traffic stays where it was, as these are not well: {service}." in ran.said


def test_after_one_that_was_not_well_the_next_build_serves(serving: Project, config: Any) -> None:
    before = traffic(serving)
    serving.state["ill"] = {"video-service": "start"}
    assert serving.build(config, **GIVEN, COMMIT_SHA="after").status != 0
    serving.state["ill"] = {}
    assert serving.build(config, **GIVEN, COMMIT_SHA="mended").status == 0
    assert not traffic(serving).items() & before.items()


@pytest.mark.parametrize(
    "failing",
    ["video-service/Dockerfile", "push", "psql", "20261125000500_logs.sql", "run services list", "run deploy usage"],
)
def test_whatever_fails_before_leaves_the_traffic_where_it_was(serving: Project, config: Any, failing: str) -> None:
    before = traffic(serving)
    serving.state["failing"] = [failing]
    assert serving.build(config, **GIVEN, COMMIT_SHA="after").status != 0
    assert traffic(serving) == before
    if "run" not in failing:
        assert serving.called("gcloud", "run", "deploy") == [], "no new code over an old schema"


def test_traffic_that_cannot_be_moved_is_an_error_that_says_where_things_stand(serving: Project, config: Any) -> None:
    serving.state["failing"] = ["update-traffic storage-service"]
    ran = serving.build(config, **GIVEN, COMMIT_SHA="after")
    assert ran.status == 1
    assert "storage-service and those after it in (logging user usage storage video)" in ran.said


def test_a_peer_that_is_ill_can_be_mended_by_asking_for_less(serving: Project, config: Any) -> None:
    serving.state["ill"] = {"video-service": "/ready"}
    assert "_CHECK=/health" in serving.build(config, **GIVEN, COMMIT_SHA="after").said
    assert serving.build(config, **GIVEN, COMMIT_SHA="after", _CHECK="/health").status == 0


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_what_has_no_default_is_asked_for_before_anything_is_deployed(
    prepared: Project, config: Any, missing: str
) -> None:
    ran = prepared.build(config, **GIVEN | {missing: ""})
    assert ran.status == 1
    assert f"{missing} is not set" in ran.said
    assert prepared.state["services"] == {}


def test_while_the_secret_is_replaced_the_one_before_is_accepted(prepared: Project, config: Any) -> None:
    secrets = prepared.state["secrets"]
    prepared.state["secrets"] = secrets | {"short-video-jwt-secret": [*secrets["short-video-jwt-secret"], "n" * 64]}
    assert prepared.build(config, **GIVEN, _PREVIOUS_JWT_SECRET="1").status == 0
    for name in NAMES:
        given = deployed(prepared, name)["--set-secrets"].split(",")
        assert "JWT_SECRET_PREVIOUS=short-video-jwt-secret:1" in given
        assert "JWT_SECRET=short-video-jwt-secret:latest" in given


def test_limits_are_what_the_substitutions_say(prepared: Project, config: Any) -> None:
    limits = {"_MAX_UPLOAD_MB": "7", "_MAX_STORAGE_MB": "8", "_DAILY_BANDWIDTH_MB": "9", "_TOKEN_SECONDS": "10"}
    assert prepared.build(config, **GIVEN, **limits, _MIN_INSTANCES="1", _BUCKET="films").status == 0
    owners = {
        "_MAX_UPLOAD_MB": "video",
        "_MAX_STORAGE_MB": "storage",
        "_DAILY_BANDWIDTH_MB": "usage",
        "_TOKEN_SECONDS": "user",
    }
    for limit, name in owners.items():
        assert environment(deployed(prepared, name))[limit[1:]] == limits[limit]
    assert {deployed(prepared, name)["--min"] for name in NAMES} == {"1"}
    assert environment(deployed(prepared, "storage"))["GCS_BUCKET"] == "films"


def test_there_is_nothing_that_deploy_does_not_make(prepared: Project, config: Any) -> None:
    """An account or a secret that is missing is Cloud Run's own error."""
    prepared.state["accounts"] = []
    assert "no such account" in prepared.build(config, **GIVEN).said
    prepared.state["secrets"] = {"short-video-database-url": ["x"]}
    assert prepared.build(config, **GIVEN).status != 0
