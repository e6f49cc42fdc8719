"""Pushing over HTTP with the real client: what is sent, what is not sent again, what goes wrong on the way."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from solami_hf.hub_cards.repository_files import kind_of
from solami_hf.processing.hub_upload import refusals

# A push for each line of input; importing what pushes takes longer than all pushes. They need nothing of training.
PUSH = """
import json, logging, os, sys, time, traceback
logging.basicConfig(level=logging.INFO, format="%(message)s")
from huggingface_hub.utils import _http
wait, time.sleep = time.sleep, lambda seconds: wait(min(seconds, 0.01))
from solami_hf.processing.hub_upload import push_folder
for line in sys.stdin:
    folder, token, options = json.loads(line)
    os.environ["HF_TOKEN"] = token
    try:
        done = push_folder(folder, "org/thing", **options)
        answer = [True, [done.commit, done.changed, done.url]]
    except Exception:
        answer = [False, traceback.format_exc()]
    assert not {"trl", "peft", "datasets", "transformers.trainer"} & set(sys.modules)
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(scope="module")
def pusher(hub_of_module, tmp_path_factory):
    """A process that pushes to the Hub, and the file with what it tells."""
    home = tmp_path_factory.mktemp("pusher")
    with (home / "told").open("w+") as told:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= hub_of_module.environment(home / "home") | {"CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.Popen(
            [sys.executable, "-c", PUSH],
            env=environment, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told, text=True,
        )  # fmt: skip
        with process:
            yield process, home / "told"
            process.kill()


@pytest.fixture
def folder(tmp_path):
    """A few files, one of them large enough for Git LFS."""
    path = tmp_path / "thing"
    (path / "codec").mkdir(parents=True)
    (path / "README.md").write_text("---\nlicense: mit\n---\n# Thing\n")
    (path / "config.json").write_text('{"model_type": "x"}')
    (path / "model.safetensors").write_bytes(bytes(range(256)) * 400)
    (path / "codec" / "config.json").write_text("{}")
    return path


@pytest.fixture
def push(pusher, hub, folder):
    """`push(**options)` in a process that knows the Hub: commit, changed, address; or what it fails with."""
    process, told = pusher

    def run(fails=False, token="x", **options):
        limit = threading.Timer(300, process.kill)
        limit.start()
        process.stdin.write(json.dumps([str(folder), token, options]) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        limit.cancel()
        succeeded, answer = json.loads(line) if line else (None, told.read_text()[-4000:])
        assert succeeded is not fails and succeeded is not None, answer
        return answer

    return run


def puts(hub):
    return [request for request in hub.requests if request.startswith("PUT /lfs")]


def test_one_commit_then_none_then_what_changed(hub, push, folder):
    first, changed, url = push(tag="v1")
    repo = hub.repos["models", "org/thing"]
    assert changed and repo.private and url.endswith(first) and repo.tags == {"v1": first}
    assert len(repo.commits) == 2  # that of the creation, and ours
    sent = {name: data for name, data in hub.files("org/thing").items() if name != ".gitattributes"}
    assert sent == {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert push() == [first, False, url] and len(repo.commits) == 2 and len(puts(hub)) == 1
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.py").write_text("")
    repo.commit({**hub.files("org/thing"), "picture.png": b"the owner's", "other/model.safetensors": b"the owner's"})
    second, *_ = push()
    assert sorted(hub.files("org/thing")) == [
        ".gitattributes", "README.md", "codec/config.json", "config.json", "model-00001-of-00001.safetensors",
        "other/model.safetensors", "picture.png",
    ]  # fmt: skip
    assert len(puts(hub)) == 1, "the same weights under another name are on the Hub already"
    message = push(fails=True, tag="v1")
    assert f"tag v1 of org/thing is at {first[:8]}, not at {second[:8]}" in message


def test_branch_and_visibility(hub, push):
    commit, *_ = push(revision="small", private=False)
    repo = hub.repos["models", "org/thing"]
    assert not repo.private and repo.branches["small"] == commit
    assert list(hub.files("org/thing")) == [".gitattributes"]
    assert "config.json" in hub.files("org/thing", revision="small")


def test_a_hub_out_of_order_is_asked_again(hub, push, fault):
    fault("PUT /lfs", status=503, times=2)
    fault("POST /api/models/org/thing/commit", status=500)
    fault("POST /org/thing.git/info/lfs", status=504)
    commit, changed, _ = push()
    assert changed and "model.safetensors" in hub.files("org/thing") and len(puts(hub)) == 3
    assert len(hub.repos["models", "org/thing"].commits) == 2


def test_an_upload_that_breaks_off_goes_on_later(hub, push, fault):
    fault("PUT /lfs")  # hangs up once: the client tries again by itself
    fault("POST /api/models/org/thing/commit", times=99)
    assert "push again later: it goes on from there" in push(fails=True)
    assert list(hub.files("org/thing")) == [".gitattributes"], "half a push shows nothing"
    before = len(puts(hub))
    hub.faults.clear()
    assert push()[1] and len(hub.files("org/thing")) == 5
    assert len(puts(hub)) == before == 2, "what had arrived was not sent again"


MANY = """
import json, sys, time
wait, time.sleep = time.sleep, lambda seconds: wait(min(seconds, 0.01))
import hf_xet
from solami_hf.processing.hub_upload import push_folder
try:
    print(json.dumps(push_folder(sys.argv[1], "org/many", "dataset", tag=sys.argv[2]).commit))
except Exception as error:
    print(json.dumps(f"{type(error).__name__}: {error}"))
"""


def test_hundreds_of_files_go_on_where_they_broke_off(hub, in_process, folder, fault):
    for number in range(300):  # hf_xet's way, as of an installed client: the test's Hub takes them as regular files
        (folder / f"{number:03}.txt").write_text(f"row {number}")
    (folder / "model.safetensors").unlink()
    fault("POST /api/datasets/org/many/commit", status=400, times=99, after=1)
    assert "the Hub is out of order" in in_process(MANY, folder, "v1", HF_HUB_DISABLE_XET="0")
    repo = hub.repos["datasets", "org/many"]
    arrived = len(hub.files("org/many", "datasets"))
    assert 200 < arrived < 304 and len(repo.commits) == 2 and repo.tags == {}
    hub.faults.clear()
    commit = in_process(MANY, folder, "v1", HF_HUB_DISABLE_XET="0")
    assert len(repo.commits) == 3, "what had arrived was not committed again"
    assert len(hub.files("org/many", "datasets")) == 304 and repo.tags == {"v1": commit}


def test_what_must_not_leave_does_not_and_linked_folders_do(hub, push, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "more[1].json").write_text("{}")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "notes.txt").write_text("token " + "hf_" + "a1" * 17)
    told = push(fails=True)
    assert "is not pushed. notes.txt: a Hugging Face token in line 1" in told and not hub.repos
    (folder / "notes.txt").unlink()
    push()
    assert "linked/more[1].json" in hub.files("org/thing")
    push(names=["README.md"])
    assert len(hub.files("org/thing")) == 6, "without weights among the names none are stale"


def test_strangers_and_bad_cards_are_refused_in_words(hub, push, folder):
    message = push(fails=True, token="stranger")
    assert "the Hub does not know you" in message and "hf auth login" in message
    (folder / "README.md").write_text("---\nlicense: my own\n---\n# Thing\n")
    assert "\"license\" has 'my own'" in push(fails=True)
    assert list(hub.files("org/thing")) == [".gitattributes"]


GATED = """
import json
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
told = {}
for name, call in {
    "gated": lambda: hf_hub_download("org/gated", "config.json"),
    "private": lambda: hf_hub_download("org/thing", "config.json"),
    "nothing": lambda: snapshot_download("org/nothing"),
    "revision": lambda: hf_hub_download("org/open", "config.json", revision="v9"),
    "file": lambda: hf_hub_download("org/open", "nothing.json"),
}.items():
    try:
        call()
    except (EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        told[name] = type(error).__name__
print(json.dumps(told))
"""


def test_what_the_client_is_told_by_the_test_hub(hub, in_process):
    for name, options in {"gated": {"gated": True}, "thing": {"private": True}, "open": {}}.items():
        repo = sys.modules["hub_server"].Repo(**{"private": False, **options})
        repo.commit({"config.json": b"{}"})
        hub.repos["models", f"org/{name}"] = repo
    assert in_process(GATED, token="stranger") == {
        "gated": "GatedRepoError", "private": "RepositoryNotFoundError", "nothing": "RepositoryNotFoundError",
        "revision": "RevisionNotFoundError", "file": "RemoteEntryNotFoundError",
    }  # fmt: skip


# ---- what is refused, without a Hub


def found_in(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [finding.what for finding in refusals(tmp_path, [name])]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("README.md", "log in with " + "hf_" + "a1" * 17, "a Hugging Face token in line 1"),
        ("train.py", "\nkey = 'sk-" + "ab12" * 8 + "'", "an OpenAI or Anthropic key in line 2"),
        ("notes.txt", "-----BEGIN OPENSSH PRIVATE KEY-----", "a private key in line 1"),
        ("settings.yaml", 'api_key: "0123456789abcdef"', "a password in line 1"),
        (".env", "A=b", "a file of secrets"),
        ("pytorch_model.bin", b"x", "a pickle"),
        ("weights.safetensors", b"\x80\x04\x95hidden", "a pickle"),
        ("config.json", '{"model": {"path": "/root/runs/sft"}}', "'/root/runs/sft' is a path of this machine"),
        ("recipe.yaml", "data: /cluster/me/tokens\n", "'/cluster/me/tokens' is a path of this machine"),
        ("README.md", "Trained on /home/me/data.", "'/home/me/data.' is a path of this machine"),
        ("rows.jsonl", '{"a": 1}\n{"a": "C:\\\\Users\\\\me"}', "'C:\\\\Users\\\\me' is a path of this machine"),
        ("body/SMPLX_NEUTRAL.npz", b"x", "a licensed body model (SMPL-X or a relative)"),
    ],
)
def test_refused(tmp_path, name, content, what):
    assert what in found_in(tmp_path, name, content)


def test_refused_by_what_is_inside(tmp_path):
    np.savez(tmp_path / "walk.npz", v_template=np.zeros(3), shapedirs=np.zeros(3))
    np.savez(tmp_path / "objects.npz", a=np.array([{}, None], dtype=object))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object))
    found = {f.where: f.what for f in refusals(tmp_path, ["walk.npz", "objects.npz", "object.npy"])}
    assert found == {
        "walk.npz": "a licensed body model (SMPL-X or a relative)", "objects.npz": "a pickle", "object.npy": "a pickle"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", "See https://huggingface.co/home/me, `runs/sft/`, ./data/x and a/b. 3/4 of <tmp>/x."),
        ("config.json", '{"auto_map": {"AutoConfig": "a.B"}, "rate": "1/2", "url": "https://x.org/a/b"}'),
        ("tokenizer.json", '{"model": {"vocab": {"/usr/home": 1}, "x": "/root/a/b"}}'),
        ("smplx_walk.npz", b"not a body"),
        ("code.py", 'token = os.environ["HF_TOKEN"]\npassword = "changeme"'),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{}      "),
    ],
)
def test_not_refused(tmp_path, name, content):
    assert found_in(tmp_path, name, content) == []


def test_kinds(tmp_path, folder):
    assert kind_of(folder) == "checkpoint"
    (folder / "config.json").write_text('{"model_type": "solami_motion_vq"}')
    assert kind_of(folder) == "codec"
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is no JSON"):
        kind_of(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds neither a model"):
        kind_of(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        kind_of(tmp_path / "nothing")
