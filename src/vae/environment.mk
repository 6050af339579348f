# What programs of this project get instead of a user's own variables, whether they are started by make, which
# includes this file, or by hand or by DVC: vae/environment.py reads it before a script imports a library.
# Not here, so left to the user: places, addresses, certificates and proxies, TMPDIR, DVC's and Ray's settings,
# and how many threads and which instructions the processor uses, on which no result depends.

# % is any text. Settings of how libraries and tools work, which change what they do or stop them.
REMOVED := PYTHON% PIP_% UV_% MLFLOW_% _MLFLOW_% NUMPY_% NPY_ENABLE_% PANDAS_% SCIPY_% SKLEARN_% JOBLIB_% LOKY_%
REMOVED += ARROW_% TORCH_% PYTORCH_% PYDANTIC_% SQLALCHEMY_% TQDM_% IMAGEIO_% PILLOW_% MPLSETUPCFG SSLKEYLOGFILE
# git: the repository is this folder's, also in a hook of another one.
REMOVED += GIT_PYTHON_% GIT_DIR GIT_WORK_TREE GIT_COMMON_DIR GIT_INDEX_FILE GIT_PREFIX GIT_NAMESPACE
REMOVED += GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES BASH_ENV CDPATH
# Of these, what is left: where packages and runs are and how to get there.
KEPT := PIP_CONFIG_FILE PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_NO_INDEX PIP_TRUSTED_HOST PIP_CERT
KEPT += PIP_CLIENT_CERT PIP_PROXY PIP_TIMEOUT PIP_DEFAULT_TIMEOUT PIP_RETRIES PIP_CACHE_DIR PIP_NO_CACHE_DIR
KEPT += UV_CONFIG_FILE UV_DEFAULT_INDEX UV_INDEX% UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_INSECURE_HOST UV_HTTP_%
KEPT += UV_KEYRING_PROVIDER UV_SYSTEM_CERTS UV_NATIVE_TLS UV_OFFLINE UV_CACHE_DIR UV_NO_CACHE UV_LINK_MODE
KEPT += UV_CONCURRENT_% MLFLOW_TRACKING_% MLFLOW_HTTP_% MLFLOW_S3_% MLFLOW_SERVER_% MLFLOW_WORKSPACE
KEPT += PYTHONUNBUFFERED PYTHONIOENCODING PYTHONUTF8 PYTHONCOERCECLOCALE PYTHONHASHSEED PYTHONPYCACHEPREFIX
unexport $(filter-out $(KEPT),$(filter $(REMOVED),$(.VARIABLES)))

# Nobody is told of what runs here.
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0
# Figures go to files, drawn in the same way for everybody.
export MPLBACKEND := agg
export MATPLOTLIBRC := /dev/null
# MLflow's results are its pages, not what it prints.
export MLFLOW_LOGGING_LEVEL := ERROR
export MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT := true
# MLflow would try a server that is lost for minutes; here a user may ask for more.
export MLFLOW_HTTP_REQUEST_MAX_RETRIES ?= 1
export MLFLOW_HTTP_REQUEST_TIMEOUT ?= 10
