"""Data set cards: where the bytes come from, how they are known to be the official ones, how they are cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from curvebench.cards.base import (
    INSIDE_OR_EMPTY,
    MD5,
    SHA256,
    STRICT,
    Card,
    Count,
    Problem,
    RelativePath,
    Target,
    Text,
    Url,
    show,
    table,
)


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file to download and unpack.

    Args:
        url: the official address.
        mirrors: tried in turn if ``url`` fails.
        name: file name of the download.
        bytes: its size.
        md5: checksum; one of the two is required.
        sha256: checksum, preferred.
        layout: which layout of the data set it holds; None: all of them.
    """

    __pydantic_config__ = STRICT

    url: Annotated[Url, Field(description="the official address")]
    mirrors: Annotated[tuple[Url, ...], Field(description="tried in turn if the url fails")] = ()
    name: Annotated[RelativePath, Field(description="file name of the download")]
    bytes: Annotated[Count, Field(description="size")]
    md5: Annotated[str | None, Field(pattern=MD5, description="official checksum; md5 or sha256 is required")] = None
    sha256: Annotated[str | None, Field(pattern=SHA256, description="checksum, preferred to md5")] = None
    layout: Annotated[Text | None, Field(description="the layout of the data set that it holds")] = None


@dataclass(frozen=True, kw_only=True)
class DatasetFile:
    """A file that the loader reads.

    Args:
        path: relative to the data set's folder.
        bytes: its size; None: nobody publishes it, the checksum alone decides.
        md5: checksum; one of the two is required.
        sha256: checksum, preferred.
        layout: which layout of the data set it belongs to; None: all of them.
        url: the official address of this file alone, for files that come in no archive.
        status: how the content that the checksum fixes is related to the official file.
    """

    __pydantic_config__ = STRICT

    path: Annotated[RelativePath, Field(description="relative to the data set's folder")]
    bytes: Annotated[Count | None, Field(description="size; absent if nobody publishes it")] = None
    md5: Annotated[str | None, Field(pattern=MD5, description="official checksum; md5 or sha256 is required")] = None
    sha256: Annotated[str | None, Field(pattern=SHA256, description="checksum, preferred to md5")] = None
    layout: Annotated[Text | None, Field(description="the layout of the data set that it belongs to")] = None
    url: Annotated[Url | None, Field(description="the official address of this file alone")] = None
    status: Annotated[
        Literal["official", "copy", "derived"],
        Field(description="how the checksum's content relates to the official file"),
    ] = "official"


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Constants that inputs are shifted and scaled by: ``(x - mean) / std``, one number per channel."""

    __pydantic_config__ = STRICT

    mean: Annotated[tuple[float, ...], Field(min_length=1, description="one number per channel")]
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, description="one per channel")]


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetCard(Card):
    """A data set, as its card states it.

    Args:
        loader: ``module:function`` that reads it.
        folder: subfolder of a data root; empty if there are no files.
        splits: number of samples by part: ``train``, ``validation``, ``test``.
    """

    KIND: ClassVar[str] = "datasets"
    __pydantic_config__ = STRICT

    licence: Annotated[Text, Field(description="SPDX identifier, or 'none stated'")]
    terms: Annotated[str, Field(description="what the licence asks of a user, in words")] = ""
    citation: Annotated[Text, Field(description="whom to cite")]
    homepage: Annotated[Url, Field(description="the official page")]
    source: Annotated[Literal["download", "scikit-learn", "generated"], Field(description="where the bytes come from")]
    loader: Annotated[Target, Field(description="module:function that reads it")]
    folder: Annotated[str, Field(pattern=INSIDE_OR_EMPTY, description="subfolder of a data root")] = ""
    archives: Annotated[tuple[Archive, ...], Field(description="what is downloaded")] = ()
    files: Annotated[tuple[DatasetFile, ...], Field(description="what the loader reads")] = ()
    splits: Annotated[
        Mapping[Literal["train", "validation", "test"], Count], Field(min_length=1, description="samples by part")
    ]
    normalisation: Annotated[Normalisation | None, Field(description="(x - mean) / std")] = field(default=None)


def problems(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Broken rules between keys of a data set card."""
    if raw.get("source") == "download":
        for key, why in (("folder", "the subfolder of a data root"), ("files", "at least one [[files]]")):
            if not raw.get(key):
                yield key, f'missing key: source = "download" needs {why}'
    for key, name in (("archives", "name"), ("files", "path")):
        entries = raw.get(key)
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, Mapping):
                yield from _file(f"{key}[{index}]", entry, name)
    for index, entry in enumerate(files if isinstance(files := raw.get("files"), list) else ()):
        if isinstance(entry, Mapping) and "url" in entry and "bytes" not in entry:
            yield f"files[{index}].bytes", "missing key: a file with a url needs its size"
    folder = raw.get("folder")
    if isinstance(folder, str) and ".." in folder.split("/"):
        yield f"folder = {show(folder)}", "must not leave the data root"
    normalisation = table(raw, "normalisation")
    mean, std = normalisation.get("mean"), normalisation.get("std")
    if isinstance(mean, list) and isinstance(std, list) and len(mean) != len(std):
        yield "normalisation.std", f"must have as many numbers as mean, {len(mean)}, has {len(std)}"


def _file(key: str, entry: Mapping[str, Any], name: str) -> Iterator[Problem]:
    if "md5" not in entry and "sha256" not in entry:
        yield key, "missing key: md5 or sha256, or the content cannot be checked"
    path = entry.get(name)
    if isinstance(path, str) and ".." in path.split("/"):
        yield f"{key}.{name} = {show(path)}", "must not leave the data set's folder"
