"""The drop folder, where `franker-sendmail` puts mail that the proxy has not said it keeps."""

from proxy.drop.folder import DropFolder, drop_folder
from proxy.drop.reader import DropReader

__all__ = ["DropFolder", "DropReader", "drop_folder"]
