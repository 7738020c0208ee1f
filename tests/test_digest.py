"""The SHA-256 of a file."""

from runs import ROOT

from transfergen.digest import file_sha256


def test_digest_is_that_of_the_standard_s_examples(tmp_path):
    """FIPS 180-2, appendices B.1 and B.3."""
    for content, digest in (
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (b"a" * 10**6, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ):
        (tmp_path / "file").write_bytes(content)
        assert file_sha256(tmp_path / "file") == digest


def test_no_other_module_computes_it():
    files = [file for file in (ROOT / "src").rglob("*.py") if "hashlib.file_digest(" in file.read_text()]
    assert [file.name for file in files] == ["digest.py"]
