# Environment variables of this project's programs. make includes this file; vae/environment.py reads it before a
# script imports a library. What is not here is left to the user: paths, addresses, certificates and proxies, TMPDIR,
# DVC's and Ray's settings, threads and processor instructions. No result depends on those.

# Settings that change what libraries and tools do, or stop them. % matches any text.
REMOVED := PYTHON% PIP_% UV_% MLFLOW_% _MLFLOW_% NUMPY_% NPY_ENABLE_% PANDAS_% SCIPY_% SKLEARN_% JOBLIB_% LOKY_%
REMOVED += ARROW_% TORCH_% PYTORCH_% PYDANTIC_% SQLALCHEMY_% TQDM_% IMAGEIO_% PILLOW_% MPLSETUPCFG SSLKEYLOGFILE
# git: use the repository of this folder, also in a hook of another one.
REMOVED += GIT_PYTHON_% GIT_DIR GIT_WORK_TREE GIT_COMMON_DIR GIT_INDEX_FILE GIT_PREFIX GIT_NAMESPACE
REMOVED += GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES BASH_ENV CDPATH
# Exceptions: where packages and runs are, and how to reach them.
KEPT := PIP_CONFIG_FILE PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_NO_INDEX PIP_TRUSTED_HOST PIP_CERT
KEPT += PIP_CLIENT_CERT PIP_PROXY PIP_TIMEOUT PIP_DEFAULT_TIMEOUT PIP_RETRIES PIP_CACHE_DIR PIP_NO_CACHE_DIR
KEPT += UV_CONFIG_FILE UV_DEFAULT_INDEX UV_INDEX% UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_INSECURE_HOST UV_HTTP_%
KEPT += UV_KEYRING_PROVIDER UV_SYSTEM_CERTS UV_NATIVE_TLS UV_OFFLINE UV_CACHE_DIR UV_NO_CACHE UV_LINK_MODE
KEPT += UV_CONCURRENT_% MLFLOW_TRACKING_% MLFLOW_HTTP_% MLFLOW_S3_% MLFLOW_SERVER_% MLFLOW_WORKSPACE
KEPT += PYTHONUNBUFFERED PYTHONIOENCODING PYTHONUTF8 PYTHONCOERCECLOCALE PYTHONHASHSEED PYTHONPYCACHEPREFIX
unexport $(filter-out $(KEPT),$(filter $(REMOVED),$(.VARIABLES)))

# No telemetry.
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0
# Figures are drawn to files, alike for every user.
export MPLBACKEND := agg
export MATPLOTLIBRC := /dev/null
# Hide what MLflow prints.
export MLFLOW_LOGGING_LEVEL := ERROR
export MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT := true
# MLflow would try a lost server for minutes. A user may set more.
export MLFLOW_HTTP_REQUEST_MAX_RETRIES ?= 1
export MLFLOW_HTTP_REQUEST_TIMEOUT ?= 10
