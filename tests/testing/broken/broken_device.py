"""A loss that asks for one kind of device."""

from harness.testing.plain import PlainLoss


class CudaLoss(PlainLoss):
    def terms(self, batch, embeddings, memory, epoch):
        self.fast = embeddings.main.device.type == "cuda"
        return super().terms(batch, embeddings, memory, epoch)
