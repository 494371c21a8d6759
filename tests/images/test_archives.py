"""Archives as strangers send them: real hostile zips, made here byte by byte, and mutated ones. Refused whole, and nothing stays."""
import io
import os
import random
import stat
import struct
import tracemalloc
import unicodedata
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from image_similarity.images.archives import receiving, unpack
from image_similarity.images.datasets import labelled_images
from image_similarity.images.opening import ImageError, image_files
from image_similarity.images.zip_entries import ArchiveError, ArchiveLimits, ArchiveTooLarge, zip_entries

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def picture(colour=0, size=(40, 30), suffix="JPEG") -> bytes:
    "A small picture that no zip shrinks much."
    noise = random.Random(colour)
    image, out = Image.frombytes("RGB", size, noise.randbytes(size[0] * size[1] * 3)), io.BytesIO()
    image.save(out, suffix)
    return out.getvalue()


def zipped(entries, method=zipfile.ZIP_DEFLATED) -> bytes:
    "A zip of names (or `ZipInfo`s) and contents, by the standard library."
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in entries.items() if isinstance(entries, dict) else entries:
            archive.writestr(name, content, compress_type=method)
    return stream.getvalue()


def deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


class Raw:
    "A zip built field by field, so that any field can lie."

    def __init__(self): self.body, self.list, self.count = b"", b"", 0

    def local(self, name, packed, method=8, flags=0x800, crc=0, size=0):
        at = len(self.body)
        self.body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, method, 0, 0, crc, len(packed), size, len(name), 0) + name + packed
        return at

    def listed(self, name, at, packed, size, crc, method=8, flags=0x800, mode=0):
        self.list += struct.pack("<4s6H3L5H2L", b"PK\1\2", 0x0314, 20, flags, method, 0, 0, crc, packed, size, len(name), 0, 0, 0, 0, mode << 16, at) + name
        self.count += 1

    def add(self, called, content, **lies):
        "An entry; `lies` replace what the list says of it."
        packed, crc = deflate(content), zlib.crc32(content)
        at = self.local(called, packed, crc=crc, size=len(content))
        self.listed(**{"name": called, "at": at, "packed": len(packed), "size": len(content), "crc": crc} | lies)
        return self

    def end(self, count=None, before=b"", after=b""):
        body = before + self.body
        return body + self.list + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count or self.count, count or self.count, len(self.list), len(body) - len(before), 0) + after


@pytest.fixture
def refused(tmp_path_factory):
    "Check that an archive is refused with one line, and leaves nothing anywhere."
    root = tmp_path_factory.mktemp("refused")
    (root / "in").mkdir()

    def check(content: bytes, match: str, **options):
        (root / "sent.zip").write_bytes(content)
        with pytest.raises(ArchiveError, match=match) as error: unpack(root / "sent.zip", root / "in" / "place", **options)
        assert str(error.value).isprintable() and len(str(error.value)) < 400
        assert sorted(p.name for p in root.rglob("*")) == ["in", "sent.zip"]
    return check


@pytest.fixture
def accepted(tmp_path):
    def check(content: bytes, **options):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.zip"
        file.write_bytes(content)
        found = unpack(file, file.with_suffix(""), **options)
        assert found.files == image_files(found.folder) and len(found.files) == len(found.labels) == len(found.metadata)
        assert not list(tmp_path.glob(".unpack*"))
        return found
    return check


# --- where labels are from

def test_class_folders_are_labels_however_deep(accepted):
    found = accepted(zipped({"all/train/cat/1.jpg": picture(1), "all/train/dog/1.jpg": picture(2), "all/test/dog/2.PNG": picture(3, suffix="PNG")}))
    assert (found.kind, found.labels) == ("folder", ["dog", "cat", "dog"])
    assert labelled_images(found.folder, "folder").labels == found.labels


def test_a_table_gives_labels_and_metadata(accepted):
    table = "Filename;Class;colour;class_id\n1.jpg;cat;red;7\nb/1.jpg;dog;;8\n3.jpg;;blue;9\n"
    found = accepted(zipped({"x/1.jpg": picture(1), "x/b/1.jpg": picture(2), "x/3.jpg": picture(3), "x/4.jpg": picture(4), "x/labels.csv": table}))
    assert found.kind == "csv"
    assert dict(zip([f.relative_to(found.folder / "x").as_posix() for f in found.files], zip(found.labels, found.metadata))) == {
        "1.jpg": ("cat", {"colour": "red", "class_id": "7"}), "b/1.jpg": ("dog", {"colour": "", "class_id": "8"}),
        "3.jpg": (None, {"colour": "blue", "class_id": "9"}), "4.jpg": (None, {})}


def test_pictures_in_one_folder_have_no_labels(accepted):
    for names in (["1.jpg", "2.jpg"], ["cats/1.jpg", "cats/2.jpg"]):
        found = accepted(zipped({name: picture() for name in names}))
        assert (found.kind, found.labels) == ("none", [None, None])


def test_the_caller_can_say_where_labels_are(accepted, refused):
    content = zipped({"cat/1.jpg": picture(1), "dog/2.jpg": picture(2), "t.csv": "file,label\n1.jpg,c\n2.jpg,d\n"})
    assert [accepted(content, labels=source).labels for source in ("auto", "csv", "folder", "none")] == [["c", "d"], ["c", "d"], ["cat", "dog"], [None, None]]
    refused(zipped({"a/1.jpg": picture()}), "all pictures are in one folder", labels="folder")
    refused(zipped({"1.jpg": picture(), "t.csv": "file,colour\n1.jpg,red\n"}), "t.csv: the table: no column is called label or", labels="csv")
    with pytest.raises(ValueError, match="labels='names'"): accepted(content, labels="names")


def test_what_is_unclear_is_refused(refused):
    table = "file,label\n1.jpg,cat\n"
    refused(zipped({"1.jpg": picture(), "a.csv": table, "b.csv": table}), "a.csv and b.csv: more than one table")
    refused(zipped({"1.jpg": picture(), "a.csv": table + "2.jpg,dog\n"}), r"a.csv: 1 of 2 files missing, the first is 2.jpg \(looked in the archive\)")
    refused(zipped({"a/1.jpg": picture(), "b/1.jpg": picture(), "t/a.csv": table}), "row 2: 1.jpg can be the archive/a/1.jpg or the archive/b/1.jpg")
    refused(zipped({"a/1.jpg": picture(), "b/1.jpg": picture(), "c.jpg": picture()}), r"'c.jpg': lies beside the folders that give the labels \(1 such\)")
    refused(zipped({"readme.txt": "hello"}), "there is no picture in it")
    refused(zipped({}), "there is no picture in it")


def test_other_files_stay_in_the_archive_and_are_told(accepted):
    content = zipped({"pets/": "", "pets/1.jpg": picture(), "pets/.DS_Store": "x", "__MACOSX/pets/._1.jpg": "x", "__MACOSX/._all.zip": "x", "Thumbs.db": "x",
                      "pets/.hidden/2.jpg": picture(), "pets/notes.csv": "day,note\n1,sunny\n", "pets/long.csv": "x" * 2000, "pets/evil.sh": "rm -rf /"})
    found = accepted(content, limits=ArchiveLimits(table_bytes=1000))
    assert [f.name for f in found.files] == ["1.jpg"]
    assert {e["path"]: e["reason"].split(" (")[0].split(" is called")[0] for e in found.skipped.to_records()} == {
        "pets/notes.csv": "the table: no column", "pets/long.csv": "a table of more than 1,000 bytes", "pets/evil.sh": "not a picture"}
    assert all(isinstance(e, ImageError) for e in found.skipped)
    assert repr(found) == "1 picture without labels, 3 other files skipped"


def test_many_rows_for_many_files_of_one_name_are_matched_quickly(refused):
    "Comparing each with each would take hours."
    names = [f"{i}/1.jpg" for i in range(3_000)]
    table = "file,label\n" + "".join(f"other{i}/1.jpg,x\n" for i in range(60_000))
    refused(zipped([*((n, b"") for n in names), ("t.csv", table)]), "60000 of 60000 files missing")


# --- honest archives of every kind

def test_stored_deflated_streamed_and_zip64_archives_are_read(accepted):
    class Pipe(io.RawIOBase): # cannot be sought in: sizes come after the content, behind a flag
        def __init__(self): self.content = b""
        def writable(self): return True
        def write(self, piece):
            self.content += piece
            return len(piece)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive: archive.writestr("1.jpg", picture(7))
    large = io.BytesIO()
    with zipfile.ZipFile(large, "w") as archive:
        with archive.open("1.jpg", "w", force_zip64=True) as entry: entry.write(picture(7))
    for content in (zipped({"1.jpg": picture(7)}), zipped({"1.jpg": picture(7)}, zipfile.ZIP_STORED), pipe.content, large.getvalue(), as_zip64(zipped({"1.jpg": picture(7)}))):
        assert accepted(content).files[0].read_bytes() == picture(7)


def as_zip64(content: bytes, moved=0) -> bytes:
    "The same archive with an end in 64 bits."
    _, _, _, here, count, length, start, _ = struct.unpack("<4s4H2LH", content[-22:])
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, here, count, length, start) + struct.pack("<4sLQL", b"PK\6\7", 0, len(content) - 22 + moved, 1)
    return content[:-22] + end + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


def test_a_comment_is_no_harm(accepted):
    stream = io.BytesIO(zipped({"1.jpg": picture()}))
    with zipfile.ZipFile(stream, "a") as archive: archive.comment = b"made by hand " * 1000
    assert len(accepted(stream.getvalue()).files) == 1


def test_names_in_any_encoding_are_found(accepted):
    "Marked as UTF-8; UTF-8 that is not marked, with accents apart, as macOS has it; cp437."
    for name, flags in (("Müller/ü.jpg".encode(), 0x800), (unicodedata.normalize("NFD", "Müller/ü.jpg").encode(), 0), ("Müller/ü.jpg".encode("cp437"), 0)):
        raw = Raw()
        at = raw.local(name, deflate(picture()), flags=flags)
        raw.listed(name, at, len(deflate(picture())), len(picture()), zlib.crc32(picture()), flags=flags)
        found = accepted(raw.end())
        assert found.files == [found.folder / "Müller" / "ü.jpg"]


def test_content_is_what_the_standard_library_unpacks(accepted):
    random_bytes = random.Random(0).randbytes(700_000) # more than a piece
    content = {f"{i}.bmp": body for i, body in enumerate([b"", b"a", random_bytes, b"ab" * 400_000 + random_bytes, bytes(800_000)])}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert [f.read_bytes() for f in accepted(zipped(content, method)).files] == list(content.values())


# --- hostile names

@pytest.mark.parametrize("name, why", [
    ("../evil.jpg", "leads out"), ("a/../../evil.jpg", "leads out"), ("a/..", "leads out"), ("/etc/evil.jpg", "absolute"), ("//server/evil.jpg", "absolute"),
    ("C:/evil.jpg", "absolute"), ("c:evil.jpg", "absolute"), ("..\\evil.jpg", "backslash"), ("\\\\server\\evil.jpg", "backslash"), ("a\\..\\..\\evil.jpg", "backslash"),
    ("evil.jpg\0.txt", "control character"), ("evil\r\nSet-Cookie: a.jpg", "control character"), ("\x1b[2Jevil.jpg", "control character"), ("evil\x85.jpg", "control character"),
    ("a" * 300 + ".jpg", "too long"), ("é" * 150 + ".jpg", "too long"), ("a/" * 40 + "evil.jpg", "too deep"), ("./", "without a name"), ("", "without a name")])
def test_a_name_that_could_lead_elsewhere_is_refused(refused, name, why):
    refused(Raw().add(b"good.jpg", picture()).add(name.encode(), picture(1)).end(), why)


def test_a_name_that_is_not_the_utf8_it_says_is_refused(refused):
    refused(Raw().add(b"\xff\xfe.jpg", picture()).end(), "UTF-8")


def test_duplicates_are_refused(refused):
    accents = [unicodedata.normalize(form, "é.jpg").encode() for form in ("NFC", "NFD")]
    for first, second in ((b"a.jpg", b"a.jpg"), (b"a.jpg", b"./a.jpg"), (b"b/a.jpg", b"b//a.jpg"), accents):
        refused(Raw().add(first, picture()).add(second, picture(1)).end(), "listed twice")
    for first, second in ((b"a", b"a/b.jpg"), (b"a/b.jpg", b"a")):
        refused(Raw().add(first, b"").add(second, picture(1)).end(), "both a file and a folder")


# --- hostile kinds

@pytest.mark.parametrize("mode, why", [(stat.S_IFLNK, "symbolic link"), (stat.S_IFIFO, "neither a file"), (stat.S_IFCHR, "neither a file"),
                                       (stat.S_IFBLK, "neither a file"), (stat.S_IFSOCK, "neither a file"), (stat.S_IFDIR, "neither a file")])
def test_only_files_and_folders_are_accepted(refused, mode, why):
    refused(Raw().add(b"good.jpg", picture()).add(b"evil.jpg", b"/etc/passwd", mode=mode | 0o777).end(), why)


def test_archives_in_the_archive_are_refused(refused):
    import gzip
    import tarfile

    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive: archive.addfile(tarfile.TarInfo("x"))
    for name, content in (("in.zip", zipped({"1.jpg": picture()})), ("cat.jpg", zipped({"1.jpg": picture()})), ("cat.jpg", zipped({})), ("cat.jpg", gzip.compress(b"x")),
                          ("in.TAR", tar.getvalue()), ("in.7z", b"")):
        refused(zipped({"1.jpg": picture(), name: content}), "an archive in the archive")


def test_encrypted_entries_and_other_methods_are_refused(refused):
    for flags in (0x801, 0x840, 0x2800): refused(Raw().add(b"1.jpg", picture(), flags=flags).end(), "encrypted")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA): refused(zipped({"1.jpg": picture()}, method), f"packed with method {method}")


# --- lies

def test_damage_is_refused(refused):
    good = Raw().add(b"1.jpg", picture())
    refused(Raw().add(b"1.jpg", picture(), crc=1).end(), "checksum")
    refused(Raw().add(b"1.jpg", picture(), size=len(picture()) + 1).end(), "checksum or length")
    refused(Raw().add(b"1.jpg", picture(), size=len(picture()) - 1).end(), "more than the")
    refused(Raw().add(b"1.jpg", picture(), packed=len(deflate(picture())) - 1).end(), "too early or too late")
    refused(Raw().add(b"1.jpg", picture()).add(b"2.jpg", b"", packed=0).end(), "too early or too late")
    refused(Raw().add(b"1.jpg", picture(), method=0).end(), "its header is not")
    refused(Raw().add(b"1.jpg", picture(), name=b"2.jpg").end(), "its header is not")
    refused(Raw().add(b"1.jpg", picture(), at=5).end(), "its header is not|ends too early")
    refused(Raw().add(b"1.jpg", picture(), at=10**6).end(), "overlaps")
    refused(Raw().add(b"folder/", picture()).end(), "a folder with content")
    refused(good.end(count=2), "claims 2 entries and lists 1")
    refused(good.end(before=b"#!/bin/sh\n"), "before its beginning")
    refused(good.end(after=b"more"), "behind its end")
    refused(as_zip64(good.end(), moved=4), "zip64")


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip", picture(), b"PK\5\6" + bytes(18), b"\0" * 100_000])
def test_what_is_no_zip_is_refused(refused, content):
    refused(content, "not a zip|no picture")


def test_an_archive_cut_anywhere_is_refused(tmp_path):
    whole = zipped({"a/1.jpg": picture(1), "b/2.jpg": picture(2)})
    for length in range(0, len(whole), 7):
        with pytest.raises(ArchiveError): zip_entries(io.BytesIO(whole[:length]), ArchiveLimits())


def test_one_part_of_a_split_archive_is_refused(refused):
    content = bytearray(zipped({"1.jpg": picture()}))
    content[-18] = 1
    refused(bytes(content), "split")


# --- bombs

def test_a_small_bomb_is_refused_without_being_inflated(refused):
    refused(zipped({"1.jpg": bytes(50_000_000)}), "more than 100 times")
    refused(zipped({f"{i}.jpg": bytes(900_000) for i in range(40)}), "all files: .* more than 100 times")


def test_a_bomb_that_claims_to_be_small_is_stopped_at_its_claim(refused):
    refused(Raw().add(b"1.jpg", bytes(50_000_000), size=1000).end(), "unpacks to more than the 1,000 bytes")


def test_bytes_that_are_listed_again_and_again_are_refused(refused):
    "A kernel of zeros, and many headers that lead to it: David Fifield, A better zip bomb, 2019."
    raw = Raw().add(b"0.jpg", bytes(900_000))
    packed = len(deflate(bytes(900_000)))
    for _i in range(1, 20): raw.listed(b"0.jpg", 0, packed, 900_000, zlib.crc32(bytes(900_000)))
    refused(raw.end(), "listed twice")

    content, kernel = b"x" * 10, deflate(b"x" * 10)
    inner = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0x800, 8, 0, 0, 0, 0, 0, 5, 0) + b"2.jpg" + kernel
    quoted = Raw() # the first entry's bytes, stored, are the header and the bytes of the second
    quoted.local(b"1.jpg", inner, method=0)
    quoted.listed(b"1.jpg", 0, len(inner), len(inner), zlib.crc32(inner), method=0)
    quoted.listed(b"2.jpg", 35, len(kernel), len(content), zlib.crc32(content))
    refused(quoted.end(), "overlaps")


def test_limits_hold_to_the_byte(refused, accepted):
    content = zipped({"1.jpg": picture(1), "2.jpg": picture(2)})
    sizes = [len(picture(1)), len(picture(2))]
    for limit, value, why in (("entries", 2, "2 entries"), ("entry_bytes", max(sizes), "bytes unpacked are more than"), ("total_bytes", sum(sizes), "bytes unpacked are more than"),
                              ("archive_bytes", len(content), "larger than")):
        assert len(accepted(content, limits=ArchiveLimits(**{limit: value})).files) == 2
        refused(content, why, limits=ArchiveLimits(**{limit: value - 1}))


def test_a_list_of_a_million_entries_is_not_read(tmp_path):
    raw = Raw().add(b"1.jpg", picture())
    raw.list *= 400_000
    raw.count = 60_000 # what it claims may be little
    content = io.BytesIO(raw.end())
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match="60,000 entries are more"): zip_entries(content, ArchiveLimits())
        with pytest.raises(ArchiveError, match="its list|the list"): zip_entries(io.BytesIO(raw.end(count=9)), ArchiveLimits(entries=10_000))
        assert tracemalloc.get_traced_memory()[1] < 60_000_000 # the archive itself is held by the test
    finally: tracemalloc.stop()


def test_folders_count_too(refused, accepted):
    content = zipped({"a/b/c/1.jpg": picture(1), "a/b/d/2.jpg": picture(2)}) # four folders
    assert accepted(content, limits=ArchiveLimits(entries=4)).labels == ["c", "d"]
    refused(content, "more than 3 folders", limits=ArchiveLimits(entries=3))


def test_inflating_takes_little_memory(tmp_path):
    body = random.Random(1).randbytes(2_000_000) * 20
    (tmp_path / "large.zip").write_bytes(zipped({"1.bmp": body}, zipfile.ZIP_STORED))
    (tmp_path / "flat.zip").write_bytes(zipped({"1.bmp": bytes(40_000_000)}))
    del body
    for name in ("large", "flat"):
        tracemalloc.start()
        try:
            unpack(tmp_path / f"{name}.zip", tmp_path / name, limits=ArchiveLimits(ratio=2000))
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally: tracemalloc.stop()
        assert (tmp_path / name / "1.bmp").stat().st_size == 40_000_000


# --- receiving and placing

def test_receiving_counts_what_arrives(tmp_path):
    file = tmp_path / "x.zip"
    with receiving(file, 5) as write:
        write(b"123")
        write(b"45")
    assert file.read_bytes() == b"12345"
    with pytest.raises(FileExistsError), receiving(file, 5): pass
    assert file.read_bytes() == b"12345"
    file.unlink()
    with pytest.raises(ArchiveTooLarge, match="larger than 5 bytes"), receiving(file, 5) as write: [write(b"123") for _ in range(2)]
    with pytest.raises(ConnectionResetError), receiving(file, 5) as write: raise ConnectionResetError
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped({"1.jpg": picture()}))
    (tmp_path / "x").mkdir()
    with pytest.raises(FileExistsError): unpack(tmp_path / "x.zip", tmp_path / "x")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["x", "x.zip"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    (tmp_path / "x.zip").write_bytes(zipped({"1.bmp": random.Random(0).randbytes(300_000)}))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1])) # no file may be longer: writing fails half-way
        with pytest.raises(OSError): unpack(tmp_path / "x.zip", tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


# --- mutated archives

BASE = [zipped({"pets/cat/1.jpg": picture(1, (12, 10)), "pets/dog/2.jpg": picture(2, (12, 10)), "t.csv": "file,label\n1.jpg,a\n2.jpg,b\n"}),
        zipped({"1.bmp": bytes(3000), "__MACOSX/._1.bmp": "x"}, zipfile.ZIP_STORED), as_zip64(zipped({"a/1.jpg": picture(3, (12, 10)), "b/1.jpg": b""}))]
changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(["set", "insert", "delete", "copy", "number"]), st.integers(0, 255), st.integers(1, 40)), min_size=1, max_size=6)


def mutated(content: bytes, changes) -> bytes:
    content = bytearray(content)
    for place, how, value, length in changes:
        at = int(place * len(content))
        if how == "set": content[at:at + 1] = [value]
        if how == "insert": content[at:at] = bytes([value]) * length
        if how == "delete": del content[at:at + length]
        if how == "copy": content[at:at] = content[at // 2:at // 2 + length]
        if how == "number": content[at:at + 4] = struct.pack("<L", [0, 1, 0xFFFFFFFF, 0x7FFFFFFF, len(content)][value % 5])
    return bytes(content)


@settings(max_examples=400)
@given(base=st.sampled_from(BASE), changes=changes, source=st.sampled_from(["auto", "none"]))
def test_a_mutated_archive_gives_a_result_or_an_archive_error(tmp_path_factory, base, changes, source):
    root = tmp_path_factory.mktemp("mutated")
    (root / "x.zip").write_bytes(mutated(base, changes))
    (root / "in").mkdir()
    try: found = unpack(root / "x.zip", root / "in" / "x", source, ArchiveLimits(total_bytes=10_000_000))
    except ArchiveError as e:
        assert str(e).isprintable()
        assert sorted(p.name for p in root.rglob("*")) == ["in", "x.zip"]
    else:
        inside = {Path(where, n) for where, _, names in os.walk(root) for n in names} - {root / "x.zip"}
        assert set(found.files) <= inside and all(found.folder in p.parents for p in inside)
        assert [p.name for p in (root / "in").iterdir()] == ["x"]
        with zipfile.ZipFile(root / "x.zip") as archive: # the standard library reads the same from it
            assert {zlib.crc32(f.read_bytes()) for f in found.files} <= {i.CRC for i in archive.infolist()}


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_result_or_an_archive_error(content):
    try: zip_entries(io.BytesIO(content), ArchiveLimits())
    except ArchiveError: pass
    else: assert zipfile.is_zipfile(io.BytesIO(content))
