"The review in a real browser: JupyterLab and Voila, with the keyboard alone, and nothing lost."
import json
import os
import re
import shutil
import signal
import time
from contextlib import contextmanager

import pandas as pd
import pytest
from conftest import ROOT

from agentfastbook.books.questions import load_benchmark
from agentfastbook.books.chapters import sample_path
from agentfastbook.store.labels import labels, notes
from agentfastbook.store.reviews import reviewed_spans
