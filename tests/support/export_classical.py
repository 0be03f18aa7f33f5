"""A user's file with estimators of scikit-learn, XGBoost and LightGBM, fitted on the irises.

As a program it writes to a folder: the files of their own that such models have, pickles, and
samples.

    python export_classical.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

NAMES = np.array(["setosa", "versicolor", "virginica"])
COLUMNS = ["sepal length (cm)", "sepal/width", "petal:length", "petal width"]

rows, species = load_iris(return_X_y=True)
rows = rows.astype(np.float32)


def frame():
    """With a column of whole numbers, which stand for categories."""
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.assign(soil=(rows[:, 0] * 3).astype(int) % 4)


def logistic():
    return LogisticRegression(max_iter=500).fit(rows, NAMES[species])


def signs():
    return LogisticRegression(max_iter=500).fit(rows, np.where(species > 0, 1, -1))


def forest():
    return RandomForestClassifier(5, random_state=0).fit(rows, species)


def histogram():
    return HistGradientBoostingClassifier(max_iter=4).fit(rows, species)


def machine():
    return SVC().fit(rows, species > 0)


def ridge():
    return RidgeClassifier().fit(rows, species > 0)


def line():
    return LinearRegression().fit(rows, np.stack([species, -species], 1))


def groups():
    return KMeans(3, n_init=1, random_state=0).fit(rows)


def outliers():
    return IsolationForest(n_estimators=5, random_state=0).fit(rows)


def axes():
    return PCA(2).fit(rows)


def searched():
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [2, 3]})
    return search.fit(rows, species)


def columns():
    steps = make_column_transformer(
        (StandardScaler(), COLUMNS[:3]), (OneHotEncoder(handle_unknown="ignore"), ["soil"])
    )
    return make_pipeline(steps, LogisticRegression()).fit(frame(), NAMES[species])


def scaled():
    """Whose scaler must round as scikit-learn's does, or samples take another branch."""
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=4, n_jobs=1)
    return make_pipeline(StandardScaler(), model).fit(rows, species)


def boosted():
    import xgboost

    table = pd.DataFrame(rows, columns=COLUMNS)
    return xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(table, species > 0)


def light():
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, n_jobs=1)
    return model.fit(rows, NAMES[species])


def with_gaps():
    """The rows with every seventh value missing; no row lacks all."""
    found = rows.copy()
    found.reshape(-1)[::7] = np.nan
    return found


def imputed():
    steps = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=500))
    return steps.fit(with_gaps(), species)


def boosted_gaps():
    import xgboost

    return xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(with_gaps(), species)


def light_gaps():
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, n_jobs=1)
    return model.fit(with_gaps(), species)


def text_column():
    table = frame().assign(soil=np.where(species > 0, "clay", "sand"))
    steps = make_column_transformer((OneHotEncoder(), ["soil"]), remainder="passthrough")
    return make_pipeline(steps, LogisticRegression()).fit(table, species)


def two_targets():
    return RandomForestClassifier(2).fit(rows, np.stack([species, species > 0], 1))


def unfitted():
    return LogisticRegression()


class Own(BaseEstimator, TransformerMixin):
    def fit(self, rows, species=None):
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows):
        return np.log1p(rows)


def own_step():
    return make_pipeline(Own(), LogisticRegression()).fit(rows, species)


def main(folder):
    import joblib
    import lightgbm

    folder.mkdir(parents=True, exist_ok=True)
    boosted().save_model(folder / "boosted.json")
    boosted().save_model(folder / "boosted.ubj")
    light().booster_.save_model(folder / "light.txt")
    quantity = lightgbm.LGBMRegressor(n_estimators=4, verbose=-1, n_jobs=1)
    quantity.fit(rows, species).booster_.save_model(folder / "quantity.txt")
    joblib.dump(forest(), folder / "forest.joblib")
    joblib.dump({"model": forest()}, folder / "dict.joblib")
    order = np.random.default_rng(0).permutation(len(rows))
    np.savez(folder / "samples.npz", X=rows[order], labels=NAMES[species[order]])
    np.savez(folder / "gaps.npz", X=with_gaps()[order], labels=species[order])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
