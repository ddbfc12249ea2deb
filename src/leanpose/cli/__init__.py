"""The `leanpose` command: one file per subcommand, each light to import; the work is imported when it runs."""

import os
import shlex
import sys
import warnings
from signal import SIGINT
from typing import Annotated, NoReturn

from typer import Exit, Option, Typer

from leanpose.cli.bench import bench
from leanpose.cli.calibrate import calibrate
from leanpose.cli.convert import convert
from leanpose.cli.data import data_app
from leanpose.cli.data_label import label, label_wholebody
from leanpose.cli.demo import demo
from leanpose.cli.distill import distill
from leanpose.cli.eval import evaluate
from leanpose.cli.exit_codes import EPILOG, FAILED, listen_for_sigterm, stopped_code
from leanpose.cli.explain import explain
from leanpose.cli.export import export
from leanpose.cli.models import models
from leanpose.cli.page import page
from leanpose.cli.predict import predict
from leanpose.cli.recipes import recipes
from leanpose.cli.report import report
from leanpose.cli.retrain_head import retrain_head
from leanpose.cli.serve import serve
from leanpose.cli.train import train
from leanpose.cli.weights import weights
from leanpose.console import printable, write_any_text
from leanpose.errors import LeanposeError, StoppedError
from leanpose.version import __version__

app = Typer(
    name="leanpose",
    help="Train, distil and run small, fast, accurate human-pose estimators.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help in boxes takes longer to import than everything else
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"leanpose {__version__}")
        raise Exit


@app.callback(epilog=EPILOG)
def options(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, Option("--debug", help="Show the traceback of errors.")] = False,
    max_megapixels: Annotated[
        float | None,
        Option(
            min=0.001,
            help="Maximum megapixels of an image or video frame. [default: 25, or LEANPOSE_MAX_MEGAPIXELS]",
        ),
    ] = None,
) -> None:
    """Global options."""
    del debug  # an error may come before this; `_say` looks for it
    if max_megapixels is not None:
        os.environ["LEANPOSE_MAX_MEGAPIXELS"] = str(max_megapixels)  # for the processes that load data, too


def main() -> None:
    """Run the command line; any error becomes one sentence on stderr and an exit code."""
    listen_for_sigterm()
    write_any_text()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about corrupt metadata of images that can be read all the same
    try:
        app()
    except LeanposeError as error:
        _say(str(error))
        sys.exit(stopped_code(error.signal) if isinstance(error, StoppedError) else FAILED)
    except (KeyboardInterrupt, SystemExit) as end:
        # Typer ends with this code after either signal.
        if isinstance(end, SystemExit) and end.code not in (stopped_code(SIGINT), stopped_code()):
            raise
        print("leanpose: stopped.", file=sys.stderr)
        _leave(stopped_code())
    except Exception as error:  # a bug in leanpose, or corruption that no reader detects
        _say(
            f"`{shlex.join(['leanpose', *sys.argv[1:]])}` failed unexpectedly "
            f"({type(error).__name__}: {error}); please report it with the output of `leanpose --debug …`."
        )
        sys.exit(FAILED)


def _say(sentence: str) -> None:
    """Print the error that is being handled as a sentence, after its traceback where that is asked for."""
    if "--debug" in sys.argv:
        import traceback  # takes a moment

        traceback.print_exc()
    print(f"leanpose: {printable(sentence)}", file=sys.stderr)


def _leave(code: int) -> NoReturn:
    """Exit at once: all files are closed, and decoder threads interrupted by Ctrl-C can crash a regular exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


COMMANDS = {
    "demo": demo, "predict": predict, "train": train, "distill": distill, "retrain-head": retrain_head,
    "recipes": recipes, "eval": evaluate, "calibrate": calibrate, "report": report, "models": models,
    "weights": weights, "convert": convert, "explain": explain, "export": export, "bench": bench,
    "page": page, "serve": serve,
}  # fmt: skip
for name, command in COMMANDS.items():
    app.command(name)(command)
data_app.command()(label)
data_app.command("label-wholebody")(label_wholebody)
app.add_typer(data_app, name="data", help="Check, convert, pack, render or label data sets.")
