"""What MkDocs calls while it builds the site: reference pages from the code, and links that leave docs/ made plain.

Nothing that is generated is committed, so it cannot be stale: the card pages come from the schemas in docs/schemas,
which a test compares with the code, the pages of the optimisers from what curvebench.torch and curvebench.jax import.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

KINDS = ("method", "task", "dataset", "study", "paper")
FRAMEWORKS = ("torch", "jax")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)#:\s]+)(?:#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages where the navigation names a folder, and where it says ``*`` those of docs/ that it does not name."""
    docs, named = Path(config.docs_dir), set(words(config.nav or []))
    rest = [page.name for page in sorted(docs.glob("*.md")) if page.name not in named]
    config.nav = [listed(entry, docs, rest) for entry in config.nav or []]
    return config


def words(entry: Any) -> Iterator[str]:
    """What an entry of the navigation names, at any depth."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from words(part)


def listed(entry: Any, docs: Path, rest: list[str]) -> Any:
    """An entry of the navigation with folders and ``*`` replaced by pages, sorted by name."""
    if isinstance(entry, dict):
        return {title: listed(value, docs, rest) for title, value in entry.items()}
    if isinstance(entry, list):
        found = [listed(value, docs, rest) for value in entry]
        return [page for value in found for page in (value if isinstance(value, list) else [value])]
    if entry == "*":
        return rest
    if entry.endswith("/"):
        return sorted(path.relative_to(docs).as_posix() for path in (docs / entry).rglob("*.md"))
    return entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    schemas = Path(config.docs_dir) / "schemas"
    for kind in KINDS:
        schema = json.loads((schemas / f"{kind}.schema.json").read_text())
        text = f"# The {kind} card\n\n" + "\n".join(fields(schema))
        files.append(File.generated(config, f"reference/card-{kind}.md", content=text))
    for name in FRAMEWORKS:
        module = Path(config.docs_dir).parent / "src" / "curvebench" / f"{name}.py"
        if module.exists():
            files.append(File.generated(config, f"reference/{name}.md", content=optimisers(name, module.read_text())))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave only the text of a link to a file of the repository that is no page of the site."""
    del config, files
    here = posixpath.dirname(page.file.src_uri)

    def plain(link: re.Match[str]) -> str:
        outside = posixpath.normpath(posixpath.join(here, link["target"])).startswith("..")
        return link["text"] if outside else link[0]

    return LINK.sub(plain, markdown)


def optimisers(name: str, source: str) -> str:
    """A page that documents every object which the module with this source imports from curvebench and exports."""
    tree = ast.parse(source)
    lines = [f"# curvebench.{name}", "", ast.get_docstring(tree) or "", ""]
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("curvebench."):
            lines += [f"::: {node.module}.{alias.name}\n" for alias in node.names]
    return "\n".join(lines)


def fields(schema: Mapping[str, Any]) -> Iterator[str]:
    """A table for an object and one for each object that it holds, as Markdown."""
    yield from ([schema["description"], ""] if schema.get("description") else [])
    yield from table(schema)
    for name, part in schema.get("$defs", {}).items():
        if part.get("type") == "object" and part.get("properties"):
            yield from (f"## {name}", "", *([part["description"], ""] if part.get("description") else []))
            yield from table(part)


def table(schema: Mapping[str, Any]) -> Iterator[str]:
    """The table of one object's keys."""
    yield from ("| key | type | required | meaning |", "|---|---|---|---|")
    for key, value in schema.get("properties", {}).items():
        meaning = " ".join(str(value.get("description", "")).split()).replace("|", "\\|")
        needed = "yes" if key in schema.get("required", ()) else default(value)
        yield f"| `{key}` | {kind(value)} | {needed} | {meaning} |"
    yield ""


def default(value: Mapping[str, Any]) -> str:
    """What a key has that is left out."""
    return f"`{json.dumps(value['default'])}`" if "default" in value else "no"


def kind(value: Mapping[str, Any]) -> str:
    """A schema's type in a few words."""
    if "$ref" in value:
        return str(value["$ref"]).rsplit("/", 1)[-1]
    if "enum" in value or "const" in value:
        return ", ".join(f"`{json.dumps(word)}`" for word in value.get("enum", [value.get("const")]))
    if choices := value.get("anyOf") or value.get("oneOf"):
        return " or ".join(dict.fromkeys(kind(choice) for choice in choices))
    if value.get("type") == "array":
        return f"array of {kind(value['items'])}" if "items" in value else "array"
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"object of {kind(value['additionalProperties'])}"
    return str(value.get("type", "any"))
