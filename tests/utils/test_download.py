"""Downloads from a server that disconnects, sends wrong data, stalls, or is slow."""

import hashlib

import pytest

from lib.utils import download as module
from lib.utils.download import download
from lib.utils.errors import InputError
from tests.web import serving

CONTENT = bytes(range(256)) * 1200  # several chunks
HASH = hashlib.sha256(CONTENT).hexdigest()
RETRY_DELAYS = (0.0, 0.0)


@pytest.fixture
def site():
    with serving() as site:
        site.files["a.pth"] = CONTENT
        yield site


def get(site, folder, sha256=HASH[:8], timeout=5.0, retry_delays=RETRY_DELAYS):
    path = folder / "new" / "a.pth"
    return download(site.url("a.pth"), path, sha256, timeout, retry_delays)


def left(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_comes_whole_and_nothing_else_is_left(site, tmp_path):
    path = get(site, tmp_path)
    assert path.read_bytes() == CONTENT and left(tmp_path) == ["a.pth"]
    assert get(site, tmp_path) == path and len(site.asked) == 1


def test_what_broke_off_goes_on_from_where_it_was(site, tmp_path):
    site.tricks = ["cut", "cut"]
    assert get(site, tmp_path).read_bytes() == CONTENT
    half = len(CONTENT) // 2
    starts = ["", f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert [wanted for _, wanted in site.asked] == starts


def test_a_later_run_goes_on_from_the_part_that_an_earlier_one_left(site, tmp_path):
    site.tricks = ["cut", 503, 503]
    with pytest.raises(InputError, match=r"503 .*3 times in a row; .*resume from .*a\.pth\.part"):
        get(site, tmp_path)
    assert left(tmp_path) == ["a.pth.part"]
    site.asked.clear()
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.asked == [("a.pth", f"bytes={len(CONTENT) // 2}-")] and left(tmp_path) == ["a.pth"]


def test_a_part_that_was_already_whole_is_taken(site, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.pth.part").write_bytes(CONTENT)
    assert get(site, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("size", [1000, len(CONTENT), len(CONTENT) + 1])
def test_a_part_of_another_file_is_begun_anew(site, tmp_path, size):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.pth.part").write_bytes(b"x" * size)
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(site, tmp_path):
    site.knows_ranges = False
    site.tricks = ["cut"]
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_a_server_that_never_gets_further_is_given_up(site, tmp_path):
    site.knows_ranges = False
    site.tricks = ["cut"] * 9
    with pytest.raises(InputError, match=f"closed after {len(CONTENT) // 2} of {len(CONTENT)}"):
        get(site, tmp_path)
    assert len(site.asked) == 1 + len(RETRY_DELAYS)


def test_wrong_bytes_are_refused_and_only_they_are_deleted(site, tmp_path):
    site.files["a.pth"] = b"<html>please log in</html>"
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "b.pth").write_bytes(b"mine")
    with pytest.raises(InputError) as error:
        get(site, tmp_path)
    came = hashlib.sha256(b"<html>please log in</html>").hexdigest()
    assert HASH[:8] in str(error.value) and came in str(error.value)
    assert site.url("a.pth") in str(error.value) and left(tmp_path) == ["b.pth"]


def test_a_file_that_is_here_and_another_one_stays(site, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.pth").write_bytes(b"mine")
    with pytest.raises(InputError, match="a different file already exists"):
        get(site, tmp_path)
    assert (tmp_path / "new" / "a.pth").read_bytes() == b"mine" and not site.asked


def test_silence_is_broken_off(site, tmp_path):
    site.tricks = ["stall"]
    assert get(site, tmp_path, timeout=1.5).read_bytes() == CONTENT
    assert site.asked[1] == ("a.pth", f"bytes={len(CONTENT) // 2}-")


def test_slowness_is_not_silence(site, tmp_path):
    site.tricks = ["drip"]  # the whole download takes longer than the timeout
    assert get(site, tmp_path, timeout=2.0, retry_delays=()).read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_what_the_server_does_not_have_is_asked_for_once(site, tmp_path):
    with pytest.raises(InputError, match=r"b\.pth: the server returned 404"):
        download(site.url("b.pth"), tmp_path / "b.pth", retry_delays=RETRY_DELAYS)
    assert len(site.asked) == 1 and not left(tmp_path)


def test_nobody_at_the_address_is_one_line(site, tmp_path):
    with serving() as gone:
        url = gone.url("a.pth")
    with pytest.raises(InputError, match=r"connection failed .* 2 times in a row"):
        download(url, tmp_path / "a.pth", retry_delays=(0.0,))


def test_only_the_web_is_an_address(tmp_path):
    (tmp_path / "secret").write_text("x")
    with pytest.raises(InputError, match="must begin with http"):
        download(f"file://{tmp_path}/secret", tmp_path / "a")


def test_too_little_space_is_said_before_anything_comes(site, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=f"{len(CONTENT)} bytes needed, 100 free"):
        get(site, tmp_path)
    assert not left(tmp_path)
