"""TensorBoard as an observer: every figure of every epoch as a scalar. Importing this package loads no TensorBoard."""

from __future__ import annotations

from harness import ObservedEpoch, ObservedFailure, ObservedResult, ObservedRun, PluginCard, hookimpl


class TensorBoard:
    """Writes event files to the observer's folder of a run: ``tensorboard --logdir runs``."""

    @staticmethod
    @hookimpl
    def harness_plugin() -> PluginCard:
        return PluginCard(
            "Observer: figures of every epoch as TensorBoard scalars (needs the extra tensorboard).", "part"
        )

    @staticmethod
    @hookimpl
    def harness_run_started(run: ObservedRun) -> None:
        from harness_tensorboard.scalars import begin

        begin(run)

    @staticmethod
    @hookimpl
    def harness_epoch_ended(run: ObservedRun, epoch: ObservedEpoch) -> None:
        from harness_tensorboard.scalars import write

        write(run, epoch.figures, step=epoch.epoch)

    @staticmethod
    @hookimpl
    def harness_run_finished(run: ObservedRun, result: ObservedResult) -> None:
        from harness_tensorboard.scalars import end, write

        figures = {f"{protocol}/{name}": value for protocol, of in result.figures.items() for name, value in of.items()}
        write(run, figures, step=run.epochs)
        end(run)

    @staticmethod
    @hookimpl
    def harness_run_failed(run: ObservedRun, failure: ObservedFailure) -> None:
        from harness_tensorboard.scalars import end

        end(run, said=failure.error)
