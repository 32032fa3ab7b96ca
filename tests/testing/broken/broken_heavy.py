"""A plugin that loads torch with itself."""

import torch  # noqa: F401

from harness import LossProvider, PluginCard, hookimpl


class Heavy:
    @hookimpl
    def harness_plugin():
        return PluginCard("Loads torch.", "part")

    @hookimpl
    def harness_losses():
        yield LossProvider("heavy-loss", "broken_parts:SoundLoss", "Contrast.")
