"""Loggers beside Lightning's own for CSV and TensorBoard, and what each kind is given besides curves."""

import logging
import os
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL.Image import Image
from torchvision.transforms.functional import pil_to_tensor

from transfergen.errors import first_line
from transfergen.runs import artefacts


def check_installed(names: Collection[Any]) -> None:
    """Check that the packages of the loggers of these names are there.

    Raises:
        ValueError: one is missing. The message says how to install it.
    """
    for name in ("wandb", "mlflow"):
        if name in names and getattr(find_spec(name), "origin", None) is None:  # a folder of this name has no origin
            raise ValueError(f"logger={name} needs one more package: pip install 'transfergen[{name}]'")


class WeightsAndBiases(WandbLogger):
    """Logs to Weights & Biases; a resumed run goes on there as the same run.

    Args:
        save_dir: folder of the run; `wandb/` in it gets the files.
        project: where the run is listed.
        name: of the run; None: one is made up.
        offline: nothing leaves the folder, until `wandb sync` uploads it.

    Raises:
        ValueError: the service refuses the run, or cannot be reached.
    """

    def __init__(
        self, *, save_dir: Path, project: str = "transfergen", name: str | None = None, offline: bool = True
    ) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        settings = wandb.Settings(symlink=False, console="off", silent=offline)
        kept = save_dir / "wandb" / "run_id"
        super().__init__(
            name=name,
            save_dir=save_dir,
            version=_read_id(kept),
            project=project,
            mode="offline" if offline else "online",
            settings=settings,
        )
        self._wandb_init.pop("anonymous", None)  # which Lightning sets, and wandb warns of
        try:
            self.experiment.define_metric("*", step_metric="images_seen")
        except Exception as error:  # of wandb, of any kind
            raise ValueError(f"offline={offline}: Weights & Biases does not start ({first_line(error)})") from error
        for file in save_dir.glob("wandb/*/logs/*"):
            if file.is_symlink():  # to the log of wandb's service; a run that holds links is not resumed
                file.unlink()
        artefacts.write(kept, str(self.version).encode())

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log over images seen, and not over the steps that Weights & Biases counts."""
        super().log_metrics({**metrics, "images_seen": step or 0}, step)

    def finalize(self, status: str) -> None:
        """End the run, so that the next training in this process begins a run of its own."""
        super().finalize(status)
        self.experiment.finish(exit_code=0 if status == "success" else 1)


class MLflow(MLFlowLogger):
    """Logs to MLflow; a resumed run goes on there as the same run.

    Args:
        save_dir: folder of the run.
        experiment_name: where the run is listed.
        run_name: of the run; None: one is made up.
        tracking_uri: of a server; None: `mlflow.db` in `save_dir`, with pictures in `mlflow/`.

    Raises:
        ValueError: the server cannot be reached, or does not know the run that is resumed.
    """

    def __init__(
        self,
        *,
        save_dir: Path,
        experiment_name: str = "transfergen",
        run_name: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow  # noqa: F401  (before its log is set)

        for name in ("mlflow", "alembic", "lightning.pytorch.loggers.mlflow"):  # say how a database is made
            logging.getLogger(name).setLevel(logging.ERROR)
        kept = save_dir / "mlflow" / "run_id"
        try:
            super().__init__(
                experiment_name,
                run_name=run_name,
                tracking_uri=tracking_uri or f"sqlite:///{save_dir.resolve() / 'mlflow.db'}",
                artifact_location=None if tracking_uri else str(kept.parent.resolve()),
                run_id=_read_id(kept),
            )
            self.experiment.update_run(self.run_id, status="RUNNING")
        except Exception as error:  # of mlflow or of a database, of any kind
            raise ValueError(f"tracking_uri={tracking_uri}: MLflow does not start ({first_line(error)})") from error
        artefacts.write(kept, str(self.run_id).encode())


def _read_id(file: Path) -> str | None:
    return artefacts.read(file.parent, file.name).decode() if file.exists() else None


def log_picture(logger: Logger, title: str, picture: Image, images_seen: int) -> None:
    """Log a picture under a title, where the logger shows pictures."""
    match logger:
        case TensorBoardLogger():
            logger.experiment.add_image(title, pil_to_tensor(picture), images_seen)
        case WandbLogger():
            logger.log_image(title, [picture], images_seen)
        case MLFlowLogger():
            logger.experiment.log_image(logger.run_id, picture, key=title, step=images_seen, synchronous=True)


def log_text(logger: Logger, title: str, markdown: str, images_seen: int) -> None:
    """Log a text under a title, where the logger shows texts."""
    match logger:
        case TensorBoardLogger():
            logger.experiment.add_text(title, markdown, images_seen)
        case WandbLogger():
            logger.log_text(title, [title], [[markdown]], step=images_seen)
        case MLFlowLogger():
            logger.experiment.log_text(logger.run_id, markdown, f"{title}.md")


def log_settings(
    logger: Logger, settings: dict[str, Any], images_seen: int, metrics: dict[str, float] | None = None
) -> None:
    """Log settings where runs are compared by them: in TensorBoard beside the final metrics, elsewhere before any."""
    match logger:
        case TensorBoardLogger() if metrics:
            logger.log_hyperparams(settings, metrics, step=images_seen)
        case WandbLogger() if not metrics:
            logger.log_hyperparams(settings)
        case MLFlowLogger() if not metrics and not logger.experiment.get_run(logger.run_id).data.params:
            logger.log_hyperparams(settings)  # once: MLflow refuses other values of a resumed run
