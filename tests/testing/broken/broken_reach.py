"""A loss that reaches for the harness's data."""

from harness.testing.plain import PlainLoss


class ReachingLoss(PlainLoss):
    def terms(self, batch, embeddings, memory, epoch):
        from harness.data.places import cache_root

        self.where = cache_root()
        return super().terms(batch, embeddings, memory, epoch)
