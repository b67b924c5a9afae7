"""python -m tests.sendmail: try both programs, write the table into docs/sendmail.md."""

import sys
from pathlib import Path

from tests.sendmail.comparison import of_franker, of_postfix, table, with_table
from tests.sendmail.postfix import missing
from tests.support.processes import ROOT
from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir
from tests.support.sendmail import Sendmail


def main() -> int:
    """Write the table; return the exit code."""
    if lacking := missing():
        sys.stderr.write(f"{lacking}\n")
        return 1
    folder = new_data_dir()
    folder.chmod(0o755)
    store = RedisServer(folder)
    store.start()
    try:
        (folder / "drop").mkdir()
        sendmail = Sendmail(folder, folder / "drop", sys.executable)
        theirs = of_postfix(folder)
        ours = of_franker(sendmail, {"FRANKER_DATA_DIR": str(folder)})
    finally:
        store.stop()
        remove_data_dir(folder)
    page = Path(ROOT / "docs/sendmail.md")
    page.write_text(with_table(page.read_text(), table(theirs, ours)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
