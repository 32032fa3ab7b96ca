"""Encoders. What the engine expects of one:

* ``forward(images [B, 3, H, W] float, modality [B] int64) -> {name: [B, D]}``, un-normalised; ``"main"`` is always
  there and is what is ranked at test time. Images of both modalities come mixed, in any order. An encoder of two
  embeddings also returns ``"deep"`` and ``"shallow"``; ``"main"`` is then the two side by side.
* ``embedding_dims: {name: D}`` and ``input_size: (height, width)``.
* optionally ``pixel_mean`` and ``pixel_std``, three values each on the scale 0..1; ImageNet's if absent.
* optionally ``modality_on_host = True``: takes modality codes that are on the CPU beside images that are on a GPU,
  which spares a wait in every step; and ``channels_last = True``: runs faster with its tensors in that layout.
"""
