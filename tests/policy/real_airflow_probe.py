"""Run a DAG in a real Airflow with the policy in place; print what its children and containers got.

    AIRFLOW-PYTHON real_airflow_probe.py POLICY-FILE EMPTY-DIR

AIRFLOW-PYTHON is the Python (3.6 and later) of an Airflow with the Docker operators, 1.10.0 to 3.x;
EMPTY-DIR becomes AIRFLOW_HOME with an SQLite database. Tasks run in this process through Airflow's
own code: `TaskInstance.run` (1.10), `dag.test()` (2.5 and later). Docker's API client is replaced
where it would talk to the engine, so none is needed. The last line of stdout is one JSON object:

    airflow: version
    home: EMPTY-DIR
    children: {"label-mapindex": environment}; mapindex is "none" where there was no tag
    containers: {"image": [{"environment": ..., "labels": ...}, ...]} as Docker was asked
    states: {"task_id": [states of its task instances]}
    tries: {"task_id": {"mapindex": {"ti_id" or "job_id", "hostname", "pid" of the database}}}
    environ_restored, pickles, hooks_keep_names: bool
    hash_unchanged: bool, or null where DAGs are not serialized
    log: the policy's warnings
"""

import glob
import inspect
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from datetime import datetime, timezone

HERE = os.path.dirname(os.path.abspath(__file__))
DATE = (2020, 1, 2)
RUN_ID = "manual__probe"


def main(policy_file, home):
    prepare(policy_file, home)
    containers = {}
    replace_docker(containers)
    warnings = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger("dagstop.policy").addHandler(handler)

    import airflow

    bag = load_bag(os.path.join(home, "dags"))
    dag = bag.dags["probe"]
    before = dict(os.environ)
    if airflow_version() == 1:
        states = run_1(dag)
    else:
        states = run_2_or_3(dag)
    answer = {
        "airflow": airflow.__version__,
        "home": home,
        "children": read_children(os.environ["PROBE_OUT"]),
        "containers": containers,
        "states": states,
        "tries": tries(),
        "environ_restored": left_over(before) == {},
        "hash_unchanged": hash_unchanged(home),
        "pickles": pickles(dag),
        "hooks_keep_names": hooks_keep_names(dag),
        "log": warnings,
    }
    sys.stdout.flush()
    print(json.dumps(answer, sort_keys=True, default=repr))  # @task.docker has bytes


def prepare(policy_file, home):
    for folder in ("config", "dags", "out"):
        os.makedirs(os.path.join(home, folder))
    shutil.copy(policy_file, os.path.join(home, "config", "airflow_local_settings.py"))
    shutil.copy(os.path.join(HERE, "probe_dag.py"), os.path.join(home, "dags"))
    database = "sqlite:///" + os.path.join(home, "airflow.db")
    os.environ.update(
        AIRFLOW_HOME=home,
        AIRFLOW__CORE__DAGS_FOLDER=os.path.join(home, "dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__SQL_ALCHEMY_CONN=database,
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database,
        PROBE_OUT=os.path.join(home, "out"),
        # Airflow 1.10.0 looks for airflow_local_settings nowhere else.
        PYTHONPATH=os.path.join(home, "config"),
    )
    sys.path.insert(0, os.path.join(home, "config"))
    executable = os.path.join(os.path.dirname(sys.executable), "airflow")
    version = subprocess.check_output([executable, "version"]).decode().split()[-1]
    initialise = ["initdb"] if "1.10" in version else ["db", "migrate"]
    subprocess.check_call([executable, *initialise], stdout=sys.stderr)


def replace_docker(containers):
    """What the engine is asked to create goes to `containers`; all else answers as if it ran."""
    import docker

    old_sdk = docker.__version__.startswith("2.")

    def create_container(self, image, environment=None, labels=None, **rest):
        asked = {"environment": environment, "labels": labels}
        containers.setdefault(image.split(":")[0], []).append(asked)
        return {"Id": image}

    def create_service(self, template, **rest):
        spec = template["ContainerSpec"]
        pairs = [pair.decode() if isinstance(pair, bytes) else pair for pair in spec["Env"]]
        environment = dict(pair.split("=", 1) for pair in pairs)
        asked = {"environment": environment, "labels": None}
        containers.setdefault(spec["Image"].split(":")[0], []).append(asked)
        return {"ID": spec["Image"]}

    def no_archive(self, *args, **kwargs):
        raise docker.errors.APIError("none here")

    client = docker.APIClient
    client.__init__ = lambda self, *args, **kwargs: None
    client.create_container = create_container
    client.create_service = create_service
    client.create_host_config = lambda self, **kwargs: {}
    client.images = lambda self, **kwargs: [1]
    client.wait = lambda self, container: 0 if old_sdk else {"StatusCode": 0}
    client.tasks = lambda self, **kwargs: [{"Status": {"State": "complete"}, "ServiceID": "1"}]
    client.logs = client.attach = lambda self, **kwargs: []
    client.get_archive = no_archive
    for name in ("start", "close", "ping", "remove_container", "remove_service", "inspect_service"):
        setattr(client, name, lambda self, *args, **kwargs: {"fine": True})


def load_bag(folder):
    try:
        from airflow.dag_processing.dagbag import BundleDagBag as DagBag

        arguments = {"bundle_path": folder, "bundle_name": "dags-folder"}
        sys.path.insert(0, folder)
    except ImportError:
        from airflow.models import DagBag

        arguments = {"include_examples": False}
    bag = DagBag(folder, **arguments)
    if bag.import_errors:
        raise RuntimeError(bag.import_errors)
    return bag


def run_1(dag):
    from airflow.models import TaskInstance
    from airflow.utils.state import State

    date = datetime(*DATE, tzinfo=timezone.utc)
    dag.create_dagrun(run_id=RUN_ID, execution_date=date, state=State.RUNNING)
    states = {}
    for task in dag.topological_sort():
        instance = TaskInstance(task, date)
        instance.run(ignore_all_deps=True, ignore_ti_state=True)
        instance.refresh_from_db()
        states[task.task_id] = [instance.state]
    return states


def run_2_or_3(dag):
    from airflow import settings
    from airflow.models import TaskInstance

    sync_bundles()
    name = "logical_date" if airflow_version() >= 3 else "execution_date"
    dag.test(**{name: datetime(*DATE, tzinfo=timezone.utc)})
    states = {}
    for instance in settings.Session().query(TaskInstance):
        states.setdefault(instance.task_id, []).append(str(instance.state))
    return states


def tries():
    from airflow import settings
    from airflow.models import TaskInstance

    names = ("id",) if airflow_version() >= 3 else ("job_id", "hostname", "pid")
    found = {}
    for instance in settings.Session().query(TaskInstance):
        row = {"ti_id" if name == "id" else name: getattr(instance, name) for name in names}
        index = getattr(instance, "map_index", -1)
        found.setdefault(instance.task_id, {})[str(index)] = {k: v and str(v) for k, v in row.items()}
    return found


def airflow_version():
    import airflow

    return int(airflow.__version__.split(".")[0])


def sync_bundles():
    """Since 3.0 a DAG that runs must be known to the database with its bundle."""
    try:
        from airflow.dag_processing.bundles.manager import DagBundlesManager
    except ImportError:
        return
    DagBundlesManager().sync_bundles_to_db()


def read_children(folder):
    children = {}
    for name in glob.glob(os.path.join(folder, "*")):
        with open(name) as lines:
            pairs = [line.rstrip("\n").split("=", 1) for line in lines if "=" in line]
        children[os.path.basename(name)] = {pair[0]: pair[1] for pair in pairs}
    return children


def left_over(before):
    """Variables that only we set and the run changed; Airflow leaves its own AIRFLOW_CTX_*."""
    ours = ("DAGSTOP_AIRFLOW_HOME", "DAGSTOP_JOB_ID", "DAGSTOP_TI_ID", "AIRFLOW_CTX_MAP_INDEX")
    return {key: os.environ.get(key) for key in ours if os.environ.get(key) != before.get(key)}


def hash_unchanged(home):
    """Load the DAG in two new processes, with and without the policy, and compare its hash."""
    code = (
        "import sys; sys.path[:0] = {path!r}; sys.argv = ['x']\n"
        "from real_airflow_probe import load_bag\n"
        "dag = load_bag({dags!r}).dags['probe']\n"
        "try:\n"
        "    from airflow.models.serialized_dag import SerializedDagModel\n"
        "    hashes = True\n"
        "except ImportError:\n"
        "    hashes = False\n"
        "if hashes:\n"
        "    try:\n"
        "        from airflow.serialization.serialized_objects import DagSerialization as S\n"
        "    except ImportError:\n"
        "        from airflow.serialization.serialized_objects import SerializedDAG as S\n"
        "    import json, airflow\n"
        "    data = S.to_dict(dag)\n"
        "    hasher = getattr(SerializedDagModel, 'hash', None)\n"
        "    print('HASH', hasher(data) if hasher else json.dumps(data, sort_keys=True))\n"
        "    print('WRAPPED', any('_dagstop_wrapped' in vars(c) for t in dag.tasks\n"
        "          for c in getattr(t, 'operator_class', type(t)).__mro__))\n"
    )
    code = code.format(path=[HERE], dags=os.path.join(home, "dags"))
    # Airflow 2.11 serializes template_fields that are sets in the order of their hashes.
    environ = dict(os.environ, PYTHONHASHSEED="0")

    def answers():
        lines = subprocess.check_output([sys.executable, "-c", code], env=environ).decode()
        wanted = [line for line in lines.splitlines() if line[:4] in ("HASH", "WRAP")]
        return dict(line.split(" ", 1) for line in wanted)

    settings = os.path.join(home, "config", "airflow_local_settings.py")
    with_policy = answers()
    os.rename(settings, settings + ".off")
    try:
        without = answers()
    finally:
        os.rename(settings + ".off", settings)
    if not with_policy:
        return None
    if with_policy["WRAPPED"] != "True" or without["WRAPPED"] != "False":
        raise RuntimeError("the policy is not loaded, or loaded where it should not be")
    return with_policy["HASH"] == without["HASH"]


def pickles(dag):
    """Airflow 1.10 pickles whole DAGs, with dill; later ones, at most the class of an operator."""
    if airflow_version() == 1:
        import dill

        copy = dill.loads(dill.dumps(dag))
        return dag.pickle_info()["is_picklable"] and sorted(copy.task_dict) == sorted(dag.task_dict)
    classes = [getattr(task, "operator_class", type(task)) for task in dag.tasks]
    classes = [each for each in classes if each.__module__.startswith("airflow.")]
    return all(pickle.loads(pickle.dumps(each)) is each for each in classes)


def hooks_keep_names(dag):
    for task in dag.tasks:
        execute = getattr(task, "operator_class", type(task)).execute
        if execute.__name__ != "execute" or "context" not in inspect.signature(execute).parameters:
            return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
