"""What MLflow loads and serves: a trained variant, drawing through `condmix.load`.

MLflow runs this file when it loads the model ("models from code"), with the package beside it. A row of the input is
one request of condmix.load's model, with the columns of its signature; what a row leaves out, or holds null, is absent.
The answer has a row per picture: `request`, the number of the row it is of, its `seed`, and `png`, the bytes of a
file that says how it was made (base64 over HTTP).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

import condmix
from condmix.files.pictures import decode
from condmix.tracking.registry import signature

LISTS, WHOLE = ("captions", "negatives"), ("n", "seed", "steps")
MOST = 1024  # pictures of a request: a server has others to answer


class DrawingModel(PythonModel):
    """One variant, loaded when the model is."""

    def load_context(self, context: PythonModelContext) -> None:
        self.model = condmix.load(Path(context.artifacts["project"], "models", context.model_config["variant"]))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # hints would be a signature
        """The pictures of all rows; MlflowException (HTTP 400) with condmix's sentence for what can't be drawn."""
        if not len(model_input.columns):  # MLflow drops those that the signature does not have
            known = ", ".join(signature(self.model.card).inputs.input_names())
            raise MlflowException.invalid_parameter_value(f"the request has none of this model's columns: {known}")
        found = []
        for number, row in enumerate(model_input.to_dict("records")):
            try:
                request = given(row)
                files = self.model.pngs(**request)
            except condmix.CondmixError as error:
                raise MlflowException.invalid_parameter_value(f"request {number}: {error}") from None
            first = request.get("seed", 0)
            found += [{"request": number, "seed": first + i, "png": png} for i, png in enumerate(files)]
        return pd.DataFrame(found, columns=["request", "seed", "png"])


def given(row: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a request."""
    request: dict[str, Any] = {}
    for key, value in row.items():
        if value is None or (isinstance(value, float) and value != value):  # pandas fills gaps with NaN
            continue
        if key in LISTS:
            request[key] = [value] if isinstance(value, str) else [str(text) for text in value]
        elif key == "image":
            request[key] = decode(value, "image")
        elif key in WHOLE:
            request[key] = whole(key, value)
        else:
            request[key] = value
    if request.get("n", 1) > MOST:
        raise condmix.CondmixError(f"n {request['n']}: ask for at most {MOST} pictures at once")
    return request


def whole(name: str, value: float) -> int:
    """The value of a column, which pandas may hold as a float."""
    if value != int(value):
        raise condmix.CondmixError(f"{name} {value}: give a whole number")
    return int(value)


mlflow.models.set_model(DrawingModel())
