"""Downloads from a server that disconnects, sends wrong data, stalls, or is slow."""

import hashlib

import pytest

from lib.utils import download as module
from lib.utils.download import download
from lib.utils.errors import InputError
from tests.web import serving

CONTENT = bytes(range(256)) * 1200  # several chunks
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(module, "RETRY_DELAYS", (0.0, 0.0))
    monkeypatch.setattr(module, "TIMEOUT", 5.0)
    with serving() as site:
        site.files["a.pth"] = CONTENT
        yield site


def get(site, folder):
    return download(site.url("a.pth"), folder / "new" / "a.pth", HASH[:8])


def left(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_downloaded_once_and_no_other_file_is_left(site, tmp_path):
    path = get(site, tmp_path)
    assert path.read_bytes() == CONTENT and left(tmp_path) == ["a.pth"]
    assert get(site, tmp_path) == path and len(site.asked) == 1


def test_redirects_are_followed_only_to_http_and_https(site, tmp_path):
    site.files["moved.pth"] = b""
    site.tricks = [site.url("a.pth")]
    path = download(site.url("moved.pth"), tmp_path / "b.pth", HASH[:8])
    assert path.read_bytes() == CONTENT
    site.tricks = ["ftp://127.0.0.1/a.pth"]
    with pytest.raises(InputError, match=r"returned 302 redirect to ftp://127\.0\.0\.1/a\.pth"):
        download(site.url("moved.pth"), tmp_path / "c.pth", HASH[:8])


def test_an_interrupted_download_resumes(site, tmp_path):
    site.tricks = ["cut", "cut"]
    assert get(site, tmp_path).read_bytes() == CONTENT
    half = len(CONTENT) // 2
    starts = ["", f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert [wanted for _, wanted in site.asked] == starts


def test_the_next_call_resumes_from_the_partial_file(site, tmp_path):
    site.tricks = ["cut", 503, 503]
    with pytest.raises(InputError, match=r"503 .*3 times in a row; .*resume from .*a\.pth\.part"):
        get(site, tmp_path)
    assert left(tmp_path) == ["a.pth.part"]
    site.asked.clear()
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.asked == [("a.pth", f"bytes={len(CONTENT) // 2}-")] and left(tmp_path) == ["a.pth"]


def test_a_complete_partial_file_is_used(site, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.pth.part").write_bytes(CONTENT)
    assert get(site, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("size", [1000, len(CONTENT), len(CONTENT) + 1])
def test_a_partial_file_with_other_content_is_downloaded_again(site, tmp_path, size):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.pth.part").write_bytes(b"x" * size)
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_without_range_requests_the_download_restarts(site, tmp_path):
    site.knows_ranges = False
    site.tricks = ["cut"]
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_without_progress_the_download_fails_after_all_retries(site, tmp_path):
    site.knows_ranges = False
    site.tricks = ["cut"] * 9
    with pytest.raises(InputError, match=f"closed after {len(CONTENT) // 2} of {len(CONTENT)}"):
        get(site, tmp_path)
    assert len(site.asked) == 3


def test_a_file_with_a_wrong_hash_is_deleted(site, tmp_path):
    site.files["a.pth"] = b"<html>please log in</html>"
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "b.pth").write_bytes(b"mine")
    with pytest.raises(InputError) as error:
        get(site, tmp_path)
    came = hashlib.sha256(b"<html>please log in</html>").hexdigest()
    assert HASH[:8] in str(error.value) and came in str(error.value)
    assert site.url("a.pth") in str(error.value) and left(tmp_path) == ["b.pth"]


def test_an_existing_file_with_another_hash_is_kept(site, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.pth").write_bytes(b"mine")
    with pytest.raises(InputError, match="a different file already exists"):
        get(site, tmp_path)
    assert (tmp_path / "new" / "a.pth").read_bytes() == b"mine" and not site.asked


def test_a_stalled_connection_times_out(site, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 1.5)
    site.tricks = ["stall"]
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.asked[1] == ("a.pth", f"bytes={len(CONTENT) // 2}-")


def test_a_slow_connection_does_not_time_out(site, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 2.0)
    site.tricks = ["drip"]  # the whole download takes longer than the timeout
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_a_missing_file_is_requested_once(site, tmp_path):
    with pytest.raises(InputError, match=r"b\.pth: the server returned 404"):
        download(site.url("b.pth"), tmp_path / "b.pth")
    assert len(site.asked) == 1 and not left(tmp_path)


def test_a_refused_connection_is_one_line(site, tmp_path):
    with serving() as gone:
        url = gone.url("a.pth")
    with pytest.raises(InputError, match=r"connection failed .* 3 times in a row"):
        download(url, tmp_path / "a.pth")


def test_only_http_urls_are_accepted(tmp_path):
    (tmp_path / "secret").write_text("x")
    with pytest.raises(InputError, match="must begin with http"):
        download(f"file://{tmp_path}/secret", tmp_path / "a")


def test_too_little_disk_space_is_reported_before_the_download(site, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=f"{len(CONTENT)} bytes needed, 100 free"):
        get(site, tmp_path)
    assert not left(tmp_path)
