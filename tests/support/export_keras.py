"""Writes the Keras and TensorFlow models of the exporter's tests to a folder, with samples.

    python export_keras.py FOLDER

``net.keras`` (Keras 3), ``old.h5`` (Keras 2, with a DepthwiseConv2D that carries ``groups``, which
Keras 3 refuses), ``saved``, a SavedModel with an open batch axis,
``net.tflite`` and ``int8.tflite``, which has weights in int8. All classify scikit-learn's digits,
trained in closed form. ``along.keras`` takes signals of any length; its scores of some are beside
it. And two more SavedModels: ``table`` (table_model.py), and ``fitted`` (trained_model.py) with its
answers.
"""

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
import tensorflow as tf

CLASSES = 10


def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return (images[order] / 16).astype(np.float32).reshape(-1, 8, 8, 1), labels[order]


def keras_model():
    """A factory, for an export that runs this file."""
    import keras

    return network(keras, *(each[:1000] for each in digits()))


def network(keras, images, labels):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(8, 3, activation="relu")(image)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=3, padding="same", activation="relu")(x)
    features = keras.layers.Flatten()(x)
    scores = keras.layers.Dense(CLASSES, name="scores")(features)
    model = keras.Model(image, scores)
    x = np.asarray(keras.Model(image, features)(images))
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    solved = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ (10 * np.eye(CLASSES)[labels]))
    model.layers[-1].set_weights([solved[:-1], solved[-1]])
    return model


def along(keras):
    """A net that takes a signal of any length."""
    keras.utils.set_random_seed(1)
    signal = keras.Input((None, 3), name="signal")
    x = keras.layers.Conv1D(8, 3, padding="same", activation="relu")(signal)
    x = keras.layers.Concatenate()(
        [keras.layers.GlobalAveragePooling1D()(x), keras.layers.GlobalMaxPooling1D()(x)]
    )
    return keras.Model(signal, keras.layers.Dense(4, name="scores")(x))


def main(folder):
    import table_model  # all three beside this file
    import trained_model
    from signals import LENGTHS, signal

    folder.mkdir(parents=True, exist_ok=True)
    images, labels = digits()
    np.savez(folder / "calibration.npz", image=images[1000:1200])
    np.savez(folder / "evaluation.npz", image=images[1200:1400], labels=labels[1200:1400])

    import keras

    open_length = along(keras)
    open_length.save(folder / "along.keras")
    found = {
        str(length): open_length.predict(signal(length, last=True), verbose=0) for length in LENGTHS
    }
    np.savez(folder / "along.npz", **found)
    model = network(keras, images[:1000], labels[:1000])
    model.save(folder / "net.keras")

    class Service(tf.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")])
        def serve(self, image):
            return {"scores": self.model(image)}

    service = Service()
    tf.saved_model.save(service, str(folder / "saved"), signatures=service.serve)

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (folder / "net.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (folder / "int8.tflite").write_bytes(converter.convert())

    import tf_keras

    network(tf_keras, images[:1000], labels[:1000]).save(folder / "old.h5", save_format="h5")
    table_model.save(folder / "table")
    trained_model.save(folder / "fitted", folder / "fitted.npy")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
