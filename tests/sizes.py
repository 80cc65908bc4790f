"""Prints how long files and functions are; fails where one is longer than the house allows (500 and 80 lines)."""

import ast
import statistics
import sys
from pathlib import Path

FILE_LINES = 500
FUNCTION_LINES = 80


def main() -> int:
    files: dict[str, int] = {}
    functions: dict[str, int] = {}
    for path in sorted(p for top in ("store", "mirror", "cli") for p in Path(top).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        files[str(path)] = text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions[f"{path}:{node.lineno} {node.name}"] = (node.end_lineno or node.lineno) - node.lineno + 1
    for title, sizes in (("files", files), ("functions", functions)):
        ordered = sorted(sizes.values())
        p95 = ordered[int(len(ordered) * 0.95)]
        print(f"{len(ordered)} {title}: lines median {statistics.median(ordered):.0f}, p95 {p95}, most {ordered[-1]}")
    print(f"{sum(files.values())} lines in all")
    long = [
        f"{n}: {s}"
        for sizes, most in ((files, FILE_LINES), (functions, FUNCTION_LINES))
        for n, s in sizes.items()
        if s > most
    ]
    print("\n".join(long))
    return 1 if long else 0


if __name__ == "__main__":
    sys.exit(main())
