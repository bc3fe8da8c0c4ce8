"""twisted.web and this framework in one process, each inside the other.

`to_resource` puts an `cycloneish.web.Application` into a `twisted.web` site; `ResourceContainer` puts a
`twisted.web` resource, or a whole site, behind a `cycloneish.web.FallbackHandler`. Programs that move
from one to the other use them.
"""

from cycloneish.resource.container import ResourceContainer
from cycloneish.resource.forwarding import ApplicationResource, StreamingRequest, to_resource

__all__ = ["ApplicationResource", "ResourceContainer", "StreamingRequest", "to_resource"]
