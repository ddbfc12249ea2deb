"""`leanpose serve`: an HTTP server."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from typer import Option

from leanpose.cli.options import BackendOption, DetectorOption, DeviceOption, ForeignSkeletonOption, status
from leanpose.console import printable
from leanpose.errors import LeanposeError

KEY_VARIABLE = "LEANPOSE_API_KEY"
PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
LOOPBACK = ("localhost", "::1")
MIN_KEY_LENGTH = 16


def serve(
    model: Annotated[str, Option(help="A released name, or a .safetensors, .onnx or .xml file.")] = "leanpose-body-s",
    skeleton: ForeignSkeletonOption = None,
    host: Annotated[str, Option(help="Address to listen on; 0.0.0.0 for all interfaces.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        Option(
            help=f"File with the API key that clients must send. [default: environment variable {KEY_VARIABLE}, or none]"
        ),
    ] = None,
    detector: DetectorOption = "auto",
    box_threshold: Annotated[float, Option(min=0, max=1, help="Minimum detection score.")] = 0.3,
    person_threshold: Annotated[
        float | None,
        Option(
            min=0, max=1, help="Minimum person score, unless a request sets one. [default: 0.1; 0 with whole-image]"
        ),
    ] = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    flip_test: Annotated[
        bool, Option(help="Flip test: average with the mirrored crop (slower, slightly better).")
    ] = False,
    batch_size: Annotated[int | None, Option(min=1, help="Images per batch. [default: 1; 16 on a GPU]")] = None,
    batch_wait: Annotated[float, Option(min=0, max=1000, help="Maximum wait for a full batch, in milliseconds.")] = 3.0,
    max_megabytes: Annotated[float, Option(min=0.001, help="Maximum size of a request body in megabytes.")] = 20.0,
    max_images: Annotated[int, Option(min=1, help="Maximum number of images per request.")] = 16,
    max_people: Annotated[
        int, Option(min=1, help="Maximum number of people per image, and of crops per request.")
    ] = 100,
    queue: Annotated[int, Option(min=1, help="Maximum number of queued images, over all requests.")] = 64,
    timeout: Annotated[
        float, Option(min=0.001, help="Timeout from the complete request body to the response, in seconds.")
    ] = 30.0,
    body_timeout: Annotated[float, Option(min=0.001, help="Timeout for receiving a request body, in seconds.")] = 20.0,
    drain: Annotated[int, Option(min=1, help="Maximum time to finish pending requests on shutdown, in seconds.")] = 30,
) -> None:
    """Serve a model over HTTP: images in, poses out.

    POST /v1/poses, the Open Inference Protocol below /v2, Prometheus metrics at /metrics, a page to drop photos on at /
    and the API documentation at /docs. Ctrl-C and SIGTERM stop it after finishing the pending requests, within --drain
    seconds. Images may have 25 megapixels; change this with leanpose --max-megapixels 10 serve.
    """
    if any(find_spec(package) is None for package in PACKAGES):
        raise LeanposeError("leanpose serve needs extra packages: pip install 'leanpose[serve]'.")
    api_key = _api_key(api_key_file)
    from leanpose.inference.detectors import Detector
    from leanpose.inference.estimator import PoseEstimator
    from leanpose.serving.run import open_socket
    from leanpose.serving.run import serve as run
    from leanpose.serving.settings import ServeSettings

    with open_socket(host, port) as listener:
        with status() as advance:
            estimator = PoseEstimator(
                model, Detector.load(detector, threshold=box_threshold, device=device), device, backend,
                flip_test=flip_test, skeleton=skeleton, person_threshold=person_threshold, advance=advance,
            )  # fmt: skip
        settings = ServeSettings(
            name=Path(model).stem if Path(model).suffix else model, max_body_bytes=int(max_megabytes * 1e6),
            max_images=max_images, max_people=max_people, queue_size=queue, request_seconds=timeout,
            body_seconds=body_timeout, drain_seconds=drain,
            batch_size=batch_size or (16 if estimator.device.type == "cuda" else 1),
            batch_wait_seconds=batch_wait / 1000, api_key=api_key,
        )  # fmt: skip

        def say_ready() -> None:
            shown = f"[{host}]" if ":" in host else host
            print(f"Model:    {printable(settings.name)} on {estimator.device}, {estimator.backend}")
            print(f"Serving:  http://{shown}:{listener.getsockname()[1]}", flush=True)
            if api_key is None and host not in LOOPBACK and not host.startswith("127."):
                print(
                    f"Warning:  anyone who can reach {shown} can use this server; set a key with --api-key-file.",
                    flush=True,
                )

        run(estimator, settings, listener, say_ready)
    print("Stopped:  all requests were answered.")


def _api_key(file: Path | None) -> str | None:
    """The key from a file, else from the environment.

    Raises:
        LeanposeError: the file cannot be read, or the key is too short or has characters that a header cannot have.
    """
    from leanpose.files import read_regular

    if file is None:
        key, origin = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
    else:
        try:
            key, origin = read_regular(file, 10_000).decode("ascii", errors="replace").strip(), str(file)
        except (OSError, ValueError) as error:
            raise LeanposeError(f"The API key cannot be read from {file}: {error}.") from error
    if key is None:
        return None
    if len(key) < MIN_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise LeanposeError(
            f"The API key in {origin} must have at least {MIN_KEY_LENGTH} printable ASCII characters, without spaces."
        )
    return key
