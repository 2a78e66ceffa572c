"""The Python module: models, runs, gradients, training steps, and arrays that are shared without a copy.

python_test.sh runs it with pytest. $GRADWEAVE_TEST_MODELS has the files of write_models.cc.
"""

import gc
import os
import threading

import gradweave
import numpy as np
import pytest

MODELS = os.environ["GRADWEAVE_TEST_MODELS"]


def load(name):
    return gradweave.Model.load(os.path.join(MODELS, name))


def session(name="linear.gw", **options):
    return gradweave.Session(load(name), **options)


# linear.gw: prediction = x w + b with w = [[2], [3]] and b = [1], loss = mean((prediction - y)^2), and train_step by
# gradient descent with a rate of 0.1.
X = np.array([[1, 0], [0, 1], [1, 1]], "float32")
Y = np.array([[1], [2], [3]], "float32")


def test_version():
    assert gradweave.__version__.count(".") == 2


def test_model_describes_itself():
    model = load("linear.gw")
    assert [(value.name, value.dtype, value.shape) for value in model.inputs] == [
        ("x", "float32", ("batch", 2)), ("y", "float32", ("batch", 1))]
    assert [(value.name, value.trainable) for value in model.variables] == [
        ("w", True), ("b", True), ("sgd/learning_rate", False)]
    outputs = {value.name: value for value in model.outputs}
    assert sorted(outputs) == ["loss", "prediction", "train_step"]
    assert outputs["train_step"].is_update and not outputs["loss"].is_update
    assert repr(outputs["prediction"]) == "prediction: float32[batch,1]"


def test_run():
    prediction, loss = session().run({"x": X, "y": Y}, ["prediction", "loss"])
    np.testing.assert_array_equal(prediction.numpy(), [[3], [4], [6]])
    assert prediction.dtype == "float32" and prediction.shape == (3, 1)
    assert loss.numpy() == pytest.approx((4 + 4 + 9) / 3)
    assert repr(prediction) == "gradweave.Tensor(float32[3,1])"


def test_results_outlive_their_session():
    run = session()
    [prediction] = run.run({"x": X}, ["prediction"])
    del run
    array = prediction.numpy()
    del prediction
    gc.collect()
    np.testing.assert_array_equal(array, [[3], [4], [6]])


def test_gradients():
    model = load("linear.gw")
    model.add_gradients("loss")
    model.add_gradients("loss", ["x"], prefix="d/")
    assert {"grad/w", "grad/b", "d/x"} <= {value.name for value in model.outputs}
    w, b, x = gradweave.Session(model).run({"x": X, "y": Y}, ["grad/w", "grad/b", "d/x"])
    error = 2 / 3 * (X @ np.array([[2], [3]], "float32") + 1 - Y)
    np.testing.assert_allclose(w.numpy(), X.T @ error, rtol=1e-6)
    np.testing.assert_allclose(b.numpy(), error.sum(axis=0), rtol=1e-6)
    np.testing.assert_allclose(x.numpy(), error @ np.array([[2, 3]], "float32"), rtol=1e-6)


def test_train_step_and_save(tmp_path):
    train = session()
    before = train.run({"x": X, "y": Y}, ["loss"])[0].numpy()
    loss, update = train.run({"x": X, "y": Y}, ["loss", "train_step"])
    assert update is None and loss.numpy() == before
    # The gradient of b is 2/3 * (2 + 2 + 3).
    np.testing.assert_allclose(train.variable("b").numpy(), [1 - 0.1 * 14 / 3], rtol=1e-6)
    for _ in range(500):
        train.run({"x": X, "y": Y}, ["train_step"])
    assert train.run({"x": X, "y": Y}, ["loss"])[0].numpy() < 1e-3 < before
    path = str(tmp_path / "trained.gw")
    train.save(path)
    again = gradweave.Session(gradweave.Model.load(path))
    for name in ("w", "b"):
        np.testing.assert_array_equal(again.variable(name).numpy(), train.variable(name).numpy())
    with open(path, "rb") as file:
        assert [value.name for value in gradweave.Model.from_bytes(file.read()).inputs] == ["x", "y"]


def test_onnx_files(tmp_path):
    path = str(tmp_path / "linear.onnx")
    load("linear.gw").save_onnx(path, ["prediction"])
    with open(path, "rb") as file:
        models = [gradweave.Model.load(path), gradweave.Model.from_bytes(file.read())]
    for model in models:
        assert [(value.name, value.shape) for value in model.inputs] == [("x", ("batch", 2))]
        assert [value.name for value in model.outputs] == ["prediction"]
        np.testing.assert_array_equal(gradweave.Session(model).run({"x": X}, ["prediction"])[0].numpy(),
                                      [[3], [4], [6]])
    [two] = gradweave.Model.load(path, shapes={"x": [2, 2]}).inputs
    assert two.shape == (2, 2)
    [fixed] = gradweave.Session(gradweave.Model.load(path, fixed={"x": X})).run({}, ["prediction"])
    np.testing.assert_array_equal(fixed.numpy(), [[3], [4], [6]])
    with pytest.raises(gradweave.Error, match="ONNX models alone"):
        gradweave.Model.load(os.path.join(MODELS, "linear.gw"), fixed={"x": X})

    trained = session()
    trained.set_variable("b", np.array([10], "float32"))
    trained.save_onnx(path)
    again = gradweave.Session(gradweave.Model.load(path))
    prediction, loss = again.run({"x": X, "y": Y}, ["prediction", "loss"])
    np.testing.assert_array_equal(prediction.numpy(), [[12], [13], [15]])
    assert loss.numpy() == trained.run({"x": X, "y": Y}, ["loss"])[0].numpy()


def test_names_may_be_no_utf_8(tmp_path):
    model = load("latin.gw")
    assert [value.name for value in model.inputs] == ["n\udce9"]
    assert [value.name for value in model.outputs] == ["\udce9t\udce9"]
    assert repr(model.inputs[0]) == "n\\xe9: float32[batch]"
    run = gradweave.Session(model)
    [result] = run.run({"n\udce9": np.array([1, 2], "float32")}, ["\udce9t\udce9"])
    np.testing.assert_array_equal(result.numpy(), [2, 3])
    model.add_gradients("\udce9t\udce9", ["n\udce9"])
    assert "grad/n\udce9" in [value.name for value in model.outputs]
    with pytest.raises(gradweave.Error, match=r"its outputs are '\\xe9t\\xe9'"):
        run.run({}, ["other"])
    # So may names of files.
    path = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xe9.gw")
    model.save(path)
    assert os.path.exists(path) and gradweave.Model.load(path).inputs[0].name == "n\udce9"


def test_variables_are_set():
    run = session()
    run.set_variable("w", np.array([[10], [20]], "float32"))
    np.testing.assert_array_equal(run.run({"x": X}, ["prediction"])[0].numpy(), [[11], [21], [31]])
    model = load("linear.gw")
    np.testing.assert_array_equal(gradweave.Session(model).variable("w").numpy(), [[2], [3]])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool", "float16", "int8", "int16",
                                   "uint16", "uint32", "uint64"])
def test_numpy_shares_elements(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    tensor = gradweave.Tensor(array)
    assert tensor.dtype == dtype and tensor.shape == (2, 3)
    back = tensor.numpy()
    assert back.dtype == array.dtype and np.shares_memory(back, array)
    array[1, 2] = 0
    assert back[1, 2] == 0


def test_gaps_and_misaligned_elements_are_copied():
    array = np.arange(12, dtype="float32").reshape(3, 4)
    for view in (array[:, ::2], array.T, array[::-1]):
        back = gradweave.Tensor(view).numpy()
        np.testing.assert_array_equal(back, view)
        assert not np.shares_memory(back, array)
    misaligned = np.frombuffer(b"\0" + array.tobytes(), "uint8")[1:].view("float32")
    np.testing.assert_array_equal(gradweave.Tensor(misaligned).numpy(), array.ravel())


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 1, 3, 1)])
def test_shapes(shape):
    array = np.ones(shape, "int32")
    tensor = gradweave.Tensor(array)
    assert tensor.shape == shape
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert np.asarray(tensor).shape == shape


def test_read_only_arrays_are_fed():
    array = X.copy()
    array.flags.writeable = False
    np.testing.assert_array_equal(session().run({"x": array}, ["prediction"])[0].numpy(), [[3], [4], [6]])


class OnlyDlpack:
    """An array of a library that has DLPack and no buffer protocol."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()


def test_dlpack_in():
    np.testing.assert_array_equal(session().run({"x": OnlyDlpack(X)}, ["prediction"])[0].numpy(), [[3], [4], [6]])
    array = np.arange(4, dtype="int64")
    tensor = gradweave.Tensor(OnlyDlpack(array))
    assert np.shares_memory(tensor.numpy(), array)
    del array
    gc.collect()
    np.testing.assert_array_equal(tensor.numpy(), range(4))


def test_dlpack_out():
    [prediction] = session().run({"x": X}, ["prediction"])
    assert prediction.__dlpack_device__() == (1, 0)
    array = np.from_dlpack(prediction)
    assert np.shares_memory(array, prediction.numpy())
    del prediction
    gc.collect()
    np.testing.assert_array_equal(array, [[3], [4], [6]])


def test_dlpack_capsules_are_used_once_and_may_be_dropped():
    tensor = gradweave.Tensor(np.ones(3, "float32"))
    for _ in range(3):
        tensor.__dlpack__()  # Nobody takes it.

    class Twice:
        capsule = tensor.__dlpack__()

        def __dlpack__(self):
            return self.capsule

    twice = Twice()
    gradweave.Tensor(twice)
    with pytest.raises(ValueError):
        gradweave.Tensor(twice)
    with pytest.raises(ValueError, match="stream has to be None"):
        tensor.__dlpack__(stream=1)


def test_arrays_are_released():
    class Counted(np.ndarray):
        alive = 0

        def __array_finalize__(self, _):
            Counted.alive += 1

        def __del__(self):
            Counted.alive -= 1

    array = np.ones(5, "float32").view(Counted)
    before = Counted.alive
    tensor = gradweave.Tensor(array)
    del array
    gc.collect()
    assert Counted.alive == before, "the tensor keeps the array"
    del tensor
    gc.collect()
    assert Counted.alive == before - 1


def test_threads_share_a_session():
    run = session(threads=1)
    errors = []

    def work(number):
        for _ in range(50):
            [prediction] = run.run({"x": X * number}, ["prediction"])
            if prediction.numpy().tolist() != [[2 * number + 1], [3 * number + 1], [5 * number + 1]]:
                errors.append(prediction.numpy())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.parametrize("call, status, message", [
    (lambda: gradweave.Model.load("none.gw"), "NOT_FOUND", "none.gw"),
    (lambda: gradweave.Model.from_bytes(b"no model"), "INVALID_ARGUMENT", ""),
    (lambda: session(threads=-1), "INVALID_ARGUMENT", "threads"),
    (lambda: session(device="tpu"), "INVALID_ARGUMENT", "tpu"),
    (lambda: session().run({"x": X}, ["predictions"]), "NOT_FOUND", "prediction"),
    (lambda: session().run({"z": X}, ["prediction"]), "NOT_FOUND", "z"),
    (lambda: session().run({}, ["prediction"]), "INVALID_ARGUMENT", "x"),
    (lambda: session().run({"x": X.astype("float64")}, ["prediction"]), "INVALID_ARGUMENT", "float64"),
    (lambda: session().run({"x": X.T}, ["prediction"]), "INVALID_ARGUMENT", "[2,3]"),
    (lambda: session().variable("v"), "NOT_FOUND", "v"),
    (lambda: session().set_variable("b", np.ones(2, "float32")), "INVALID_ARGUMENT", "b"),
    (lambda: load("linear.gw").add_gradients("losses"), "NOT_FOUND", "loss"),
    (lambda: load("linear.gw").add_gradients("loss", ["v"]), "NOT_FOUND", "'v'"),
    (lambda: session().save("none/model.gw"), "NOT_FOUND", "none/model.gw"),
])
def test_errors(call, status, message):
    with pytest.raises(gradweave.Error) as error:
        call()
    assert error.value.status == status
    assert message in str(error.value)
    assert "gw_" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [[[1, 0]], 3, None, "text"])
def test_only_arrays_are_fed(value):
    with pytest.raises(TypeError, match="an array is expected"):
        session().run({"x": value}, ["prediction"])


def test_other_elements_are_refused():
    with pytest.raises(TypeError, match="no dtype"):
        gradweave.Tensor(np.ones(3, "complex64"))
    with pytest.raises(TypeError, match="no dtype"):
        gradweave.Tensor(np.ones(3, ">f4"))
    with pytest.raises(ValueError, match="wrt is empty"):
        load("linear.gw").add_gradients("loss", [])
