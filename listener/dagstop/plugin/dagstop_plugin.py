"""dagstop's plugin for Airflow's web pages: links to the page that `dagstop page` serves.

It adds a menu entry, and a link "stopped by dagstop" to every task instance. The link opens the
page with the stops of that task instance's run; if dagstop did not stop the run, the page says so.

Made for Airflow 1.10.4 to 3.x on Python 2.7 and 3.5 or later. Airflow 1.10.0 to 1.10.3, and the
pages of 1.10 without RBAC, get the menu entry only; 3.0 gets the links only. It needs nothing but the standard library. Save
it as `dagstop_plugin.py` in `$AIRFLOW_HOME/plugins` on the host of the web server (1.10, 2.x) or
the API server (3.x), and restart that server. Other hosts may have it too.

The links lead to DAGSTOP_PAGE_URL, an environment variable of that server, as the reader's browser
reaches the page (`https://dagstop.example.org`). Without it they lead to http://localhost:8321,
the page on the reader's own machine, or behind `ssh -L 8321:127.0.0.1:8321 HOST`.

The plugin reads nothing from Airflow's database and asks the page nothing. Nothing here fails
Airflow: what goes wrong is logged as a warning, and the link leads to the page without a run.
"""

import logging
import os

try:
    from urllib.parse import quote
except ImportError:  # Python 2.7
    from urllib import quote

try:
    from airflow.plugins_manager import AirflowPlugin
except Exception:  # not inside Airflow: nothing to add to
    AirflowPlugin = object

DEFAULT_URL = "http://localhost:8321"

_log = logging.getLogger("dagstop.plugin")


def page_url():
    """The page's address without a slash at its end: DAGSTOP_PAGE_URL, or the default."""
    url = os.environ.get("DAGSTOP_PAGE_URL", "").strip().rstrip("/")
    if not url:
        return DEFAULT_URL
    if not url.startswith(("http://", "https://")):
        message = "DAGSTOP_PAGE_URL is %r: begin it with http:// or https://; %s is used instead"
        _log.warning(message, url, DEFAULT_URL)
        return DEFAULT_URL
    return url


def run_url(dag_id, run_id=None, date=None):
    """The page with the stops of one run, named by its id or by its execution date."""
    name, value = ("run_id", run_id) if run_id else ("date", date.isoformat())
    # after the #, so that no proxy on the way keeps the names in its log
    return "%s/#dag_id=%s&%s=%s" % (page_url(), _quoted(dag_id), name, _quoted(value))


def _quoted(text):
    return quote(text.encode("utf-8"), safe="")


class StoppedByDagstop(object):
    """The link on each task instance.

    Not derived from Airflow's BaseOperatorLink: no release asks for it, and importing it from a
    plugin fails where Airflow 1.10 loads plugins while it imports its own operators.
    """

    name = "stopped by dagstop"
    operators = []

    def get_link(self, operator, dttm=None, ti_key=None, **_):
        """Airflow 2.3 and later name the task instance, earlier ones its execution date."""
        try:
            if ti_key is not None:
                return run_url(ti_key.dag_id, run_id=ti_key.run_id)
            return run_url(operator.dag_id, date=dttm)
        except Exception as error:
            _log.warning("no link to the run: %s: %s", type(error).__name__, error)
            return page_url()


def _classic_menu():
    """The entry of the pages that Airflow 1.10 shows without RBAC; later releases have none of them."""
    try:
        from flask_admin.base import MenuLink

        return [MenuLink(category="Browse", name="dagstop", url=page_url())]
    except Exception:
        return []


class DagstopPlugin(AirflowPlugin):
    name = "dagstop"
    global_operator_extra_links = [StoppedByDagstop()]
    if hasattr(AirflowPlugin, "fastapi_apps"):
        # Airflow 3. Its API server does not start if a plugin has appbuilder_menu_items and the FAB
        # provider is missing. 3.0 has nothing else, so it gets no entry; 3.1 has external views.
        # Without a url_route they are plain links.
        external_views = [{"name": "dagstop", "category": "browse", "href": page_url()}]
    else:
        menu_links = _classic_menu()
        appbuilder_menu_items = [
            {"name": "dagstop", "category": "Browse", "category_icon": "fa-globe", "href": page_url()}
        ]
