"""Templates: what an app may send, as WeChat lists it, and what a message of one must hold."""

from producers.templates.catalogue import Catalogue
from producers.templates.template import Field, Template, faults_of
from producers.templates.templates import Listing, Templates

__all__ = ["Catalogue", "Field", "Listing", "Template", "Templates", "faults_of"]
