"""A torch module: handed over as a program or as ONNX, and run where it is."""

# pyright: basic
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from typing import Any

from . import Wrong


class TorchModel:
    """A module, its inputs and outputs."""

    def __init__(self, module) -> None:
        self.module = module
        self.feeds: dict[str, Any] = {}
        self.outputs: list[str] = []

    def open(self, order, examples):
        torch = importlib.import_module("torch")

        torch.manual_seed(0)
        module = self.module.eval().to("cpu")
        notes = []
        if any(p.dtype in (torch.half, torch.bfloat16) for p in module.parameters()):
            module = module.float()
            notes.append("The module's weights are of half precision: exported as float32.")
        self.module = module
        parameters = named_parameters(module, order["call"])
        if examples is None and not order["shapes"] and order["peek"]:
            return {"kind": "", "names": list(parameters)}
        if examples is not None:
            self.feeds = from_examples(examples, parameters, order["call"])
        else:
            self.feeds = from_shapes(order["shapes"], parameters, order["call"])
        with torch.no_grad():
            made = module(*self.positional(), **self.keywords())
        self.outputs = [name for name, _ in flat_outputs(made)]
        answer = {
            "kind": "torch",
            "version": torch.__version__,
            "inputs": list(self.feeds),
            "outputs": self.outputs,
            "notes": notes,
            "path": "",
            "why": "this torch has no torch.export",
        }
        if not hasattr(torch, "export") or not hasattr(torch.export, "save"):
            return answer
        path = os.path.join(order["folder"], "foreign.pt2")  # noqa: PTH118
        with torch.no_grad():
            program = torch.export.export(module, self.positional(), self.keywords())
        torch.export.save(program, path)
        answer["path"] = path
        return answer

    def onnx(self, order):
        """Export the module as ONNX."""
        path = os.path.join(order["folder"], "foreign.onnx")  # noqa: PTH118
        write_onnx(self.module, self.positional(), self.keywords(), self.outputs, path)
        return {"path": path}

    def positional(self):
        """The first inputs, as forward has them."""
        return tuple(self.feeds[name] for name in self.leading())

    def keywords(self):
        """The rest, by name."""
        leading = self.leading()
        return {name: value for name, value in self.feeds.items() if name not in leading}

    def leading(self):
        return leading_names(self.module, self.feeds)

    def answer(self, columns):
        numpy = importlib.import_module("numpy")
        torch = importlib.import_module("torch")

        torch.set_num_threads(1)
        leading = self.leading()
        found = {name: [] for name in self.outputs}
        with torch.no_grad():
            for row in range(len(next(iter(columns.values())))):
                feeds = {
                    name: torch.from_numpy(numpy.array(column[row : row + 1]))
                    for name, column in columns.items()
                }
                made = self.module(
                    *[feeds[name] for name in leading],
                    **{name: value for name, value in feeds.items() if name not in leading},
                )
                for name, value in flat_outputs(made):
                    found[name].append(value.numpy())
        return {name: numpy.concatenate(rows) for name, rows in found.items()}


def write_onnx(module, args, kwargs, outputs, path):
    """Export a torch module as ONNX, by whichever exporter this torch has the packages for."""
    torch = importlib.import_module("torch")

    parameters = inspect.signature(torch.onnx.export).parameters
    names = [*leading_names(module, None)[: len(args)], *kwargs]
    keywords: dict[str, Any] = {"input_names": names, "output_names": outputs}
    newer = "dynamo" in parameters and importlib.util.find_spec("onnxscript")
    if "dynamo" in parameters:
        keywords["dynamo"] = bool(newer)
    if importlib.util.find_spec("onnx") is None:
        raise Wrong(
            f"torch {torch.__version__} and the converters' torch do not read each "
            f"other's files, and {sys.executable} has no onnx to export with",
            "the packages onnx and onnxscript there",
            f"{sys.executable} -m pip install onnx onnxscript",
        )
    given = args, path
    if "kwargs" in parameters:
        keywords["kwargs"] = kwargs
    elif kwargs:
        module, given = by_position(torch, module, list(kwargs)), ((*args, *kwargs.values()), path)
    for opset in (18,) if newer else range(17, 8, -1):
        if exported(torch, module, given, dict(keywords, opset_version=opset)):
            return


def by_position(torch, module, names):
    """A module that takes its last inputs by position where another takes them by these names,
    which an older exporter cannot."""

    class ByPosition(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *given: Any):
            first = len(given) - len(names)
            named = dict(zip(names, given[first:]))  # noqa: B905
            return self.module(*given[:first], **named)

    return ByPosition()


def exported(torch, module, given, keywords):
    """Export a module, unless this torch's older exporter does not know the opset: 16 is the newest
    of torch 1.12."""
    try:
        with torch.no_grad():
            torch.onnx.export(module, *given, **keywords)
    except ValueError as error:
        if "nsupported ONNX opset" in str(error) and keywords["opset_version"] in range(10, 18):
            return False
        raise
    return True


def leading_names(module, given):
    """The first parameters of ``forward`` that are given (None: all) and may go by position."""
    leading = []
    for name, parameter in inspect.signature(module.forward).parameters.items():
        if given is not None and name not in given:
            break
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            break
        leading.append(name)
    return leading


def named_parameters(module, call):
    """Of ``forward``: the names that inputs have."""
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = inspect.signature(module.forward).parameters
    usable = {name: each for name, each in named.items() if each.kind not in rest}
    if not usable:
        raise Wrong(
            f"The forward of what {call} returns has no named parameters",
            "one an input, such as forward(self, image)",
            "Wrap the module in one whose forward names its inputs.",
        )
    return usable


def from_shapes(shapes, parameters, call):
    """Zeros of the data's shapes."""
    torch = importlib.import_module("torch")

    if not shapes:
        raise Wrong(
            f"The shapes of the inputs of {call} are not known",
            "samples in a .npz or .npy, or a factory that returns (module, example inputs)",
            "With --python, give the samples as files.",
        )
    if len(shapes) == 1 and not shapes[0][0]:
        shapes = [[next(iter(parameters)), *shapes[0][1:]]]
    named = {name: (shape, dtype) for name, shape, dtype in shapes}
    empty = inspect.Parameter.empty
    required = [name for name, each in parameters.items() if each.default is empty]
    if set(named) - set(parameters) or set(required) - set(named):
        raise Wrong(
            "The data has the arrays " + ", ".join(map(repr, named)),
            "one for each parameter of the module's forward: " + ", ".join(map(repr, required)),
            "Name the arrays as forward names its parameters.",
        )
    feeds = {}
    for name in parameters:
        if name in named:
            shape, dtype = named[name]
            kind = "float32" if dtype.startswith("float") else dtype
            feeds[name] = torch.zeros([1, *shape], dtype=getattr(torch, kind))
    return feeds


def from_examples(examples, parameters, call):
    """A factory's example inputs, by name, with a batch of one."""
    torch = importlib.import_module("torch")

    if isinstance(examples, dict):
        named = dict(examples)
    else:
        row = examples if isinstance(examples, (tuple, list)) else (examples,)
        named = dict(zip(parameters, row))  # noqa: B905
    odd = [name for name, value in named.items() if not isinstance(value, torch.Tensor)]
    if odd or set(named) - set(parameters) or not named:
        raise Wrong(
            f"The example inputs of {call} hold {', '.join(map(repr, named)) or 'nothing'}",
            "a tensor for each parameter of forward: " + ", ".join(parameters),
            "",
        )
    return {
        name: (value.float() if value.is_floating_point() else value)[:1].detach().cpu()
        for name, value in named.items()
    }


def flat_outputs(made):
    """Names and tensors: the keys of a dict, else numbers."""
    if isinstance(made, dict) and all(
        not isinstance(v, (dict, list, tuple)) for v in made.values()
    ):
        return [(str(name), value) for name, value in made.items()]
    leaves = []

    def visit(value):
        if isinstance(value, dict):
            for each in value.values():
                visit(each)
        elif isinstance(value, (tuple, list)):
            for each in value:
                visit(each)
        else:
            leaves.append(value)

    visit(made)
    return [(f"output_{index}", value) for index, value in enumerate(leaves)]
