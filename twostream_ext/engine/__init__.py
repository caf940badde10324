# SPDX-License-Identifier: BSD-3-Clause
"""Training nets, testing them, and the files in between."""

from twostream_ext.optional_packages import FLOW_PACKAGES, need_packages

need_packages("twostream_ext.engine", "train", FLOW_PACKAGES)

from twostream_ext.devices import find_device
from twostream_ext.engine import distributed
from twostream_ext.engine.checkpoint import TrainedNet, load_model, save_model, start_from
from twostream_ext.engine.evaluate import evaluate, video_scores
from twostream_ext.engine.experiments import reproduce
from twostream_ext.engine.feature_files import LAYOUTS
from twostream_ext.engine.feature_nets import FeatureNets, load_feature_nets
from twostream_ext.engine.features import FEATURES_FILE, features
from twostream_ext.engine.generated_tables import GENERATED_RECIPE, generate_sources
from twostream_ext.engine.origin import videos_origin
from twostream_ext.engine.paper_tables import TABLES, Row, Table, Training
from twostream_ext.engine.pipeline import MODEL_FILE, SVM_CHOSEN_FILE, SVM_FILE, run_pipeline
from twostream_ext.engine.predict import (
    FinishedRun,
    Prediction,
    is_image_folder,
    load_run,
    predict_clips,
    predict_video,
)
from twostream_ext.engine.predictor import DEFAULT_WINDOW, Pixels, Predictor, Window, read_pixels
from twostream_ext.engine.read_ahead import ReadAhead
from twostream_ext.engine.recipes import RECIPES, Recipe, StreamRecipe, default_recipe, find_recipe, new_net
from twostream_ext.engine.scores import (
    Scores,
    check_classes,
    check_same_net,
    load_same_videos,
    load_scores,
    save_scores,
    write_scores,
)
from twostream_ext.engine.settings import TrainSettings
from twostream_ext.engine.splits import run_splits, split_folder
from twostream_ext.engine.streams import STREAMS, Stream, find_stream, register_stream
from twostream_ext.engine.summary import (
    RUN_FILE,
    SUMMARY_FILE,
    is_of_splits,
    is_of_table,
    read_any_summary,
    read_run,
    read_summary,
)
from twostream_ext.engine.table_data import Sources
from twostream_ext.engine.train import CHECKPOINT_FILE, DivergenceError, summed_loss, train, train_batches
from twostream_ext.engine.training_log import LOG_FILE, TrainingCurves, read_training_log
from twostream_ext.engine.window_features import WindowFeatures, window_features

__all__ = [
    "CHECKPOINT_FILE",
    "DEFAULT_WINDOW",
    "FEATURES_FILE",
    "GENERATED_RECIPE",
    "LAYOUTS",
    "LOG_FILE",
    "MODEL_FILE",
    "RECIPES",
    "RUN_FILE",
    "STREAMS",
    "SUMMARY_FILE",
    "SVM_CHOSEN_FILE",
    "SVM_FILE",
    "TABLES",
    "DivergenceError",
    "FeatureNets",
    "FinishedRun",
    "Pixels",
    "Prediction",
    "Predictor",
    "ReadAhead",
    "Recipe",
    "Row",
    "Scores",
    "Sources",
    "Stream",
    "StreamRecipe",
    "Table",
    "TrainSettings",
    "TrainedNet",
    "Training",
    "TrainingCurves",
    "Window",
    "WindowFeatures",
    "check_classes",
    "check_same_net",
    "default_recipe",
    "distributed",
    "evaluate",
    "features",
    "find_device",
    "find_recipe",
    "find_stream",
    "generate_sources",
    "is_image_folder",
    "is_of_splits",
    "is_of_table",
    "load_feature_nets",
    "load_model",
    "load_run",
    "load_same_videos",
    "load_scores",
    "new_net",
    "predict_clips",
    "predict_video",
    "read_any_summary",
    "read_pixels",
    "read_run",
    "read_summary",
    "read_training_log",
    "register_stream",
    "reproduce",
    "run_pipeline",
    "run_splits",
    "save_model",
    "save_scores",
    "split_folder",
    "start_from",
    "summed_loss",
    "train",
    "train_batches",
    "video_scores",
    "videos_origin",
    "window_features",
    "write_scores",
]
