"""A SavedModel that looks its input up in a table.

``number`` [n, 1] int64 0 … 2 → ``scores`` [n, 1] float32: 10, 20, 30, times a variable of 2.
"""

from pathlib import Path

import tensorflow as tf


class Model(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        rows = tf.lookup.KeyValueTensorInitializer(
            tf.constant([0, 1, 2], tf.int64), tf.constant([10.0, 20.0, 30.0])
        )
        self.table = tf.lookup.StaticHashTable(rows, default_value=-1.0)
        self.factor = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.int64, name="number")])
    def serve(self, number: tf.Tensor) -> dict[str, tf.Tensor]:
        found = tf.reshape(self.table.lookup(number), tf.shape(number))
        return {"scores": found * self.factor}


def save(folder: Path) -> None:
    model = Model()
    tf.saved_model.save(model, str(folder), signatures=model.serve)
