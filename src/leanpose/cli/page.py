"""`leanpose page`: write a web page that estimates poses in the browser."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from leanpose.cli.options import status


def page(
    model: Annotated[
        str, Argument(help="A released name, a .safetensors file, or an .onnx file exported with --include-decoding.")
    ],
    out: Annotated[Path, Option("--out", "-o", help="Output folder.")] = Path("page"),
    runtime: Annotated[
        Path | None,
        Option(help="The archive of onnxruntime-web (.tgz) or its unpacked folder. [default: fetched with npm once]"),
    ] = None,
    webgpu: Annotated[bool, Option(help="Include the WebGPU backend.")] = True,
) -> None:
    """Write a web page that estimates poses in the browser.

    It takes photos, videos and the webcam, runs from any static host, and sends nothing anywhere.
    """
    from leanpose.page import write_page

    with status() as advance:
        report = write_page(model, out, runtime=runtime, webgpu=webgpu, advance=advance)
    print(f"Wrote {out} ({report.bytes / 1e6:.1f} MB):")
    for name, size in sorted(report.sizes.items(), key=lambda item: -item[1]):
        if size >= 50_000:
            print(f"  {size / 1e6:5.2f} MB  {name}")
    print(f"Try it: python -m http.server --directory {out}, then open http://localhost:8000.")
