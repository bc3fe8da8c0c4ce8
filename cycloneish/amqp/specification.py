"""The methods of AMQP 0-9-1 and of RabbitMQ's extensions, as txamqp's specification objects.

txamqp ships no specification file; the wire client loads this one.  The table follows the published
numbers of AMQP 0-9-1 (sections 1.3 to 1.8 of its reference) and RabbitMQ's list of extensions:
``exchange.bind``, ``basic.nack``, ``confirm.select``, ``connection.blocked``, ``connection.update-secret``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .codec import PROPERTIES

try:
    from txamqp import spec as txspec
except ImportError:
    raise ImportError("AMQP needs txamqp: pip install 'cycloneish[amqp]'") from None

__all__ = ["specification"]

_CONSTANTS = {"frame-method": 1, "frame-header": 2, "frame-body": 3, "frame-heartbeat": 8, "frame-end": 206}

# A class is "name number", a method "number name arguments > answer", where "_" is reserved and "*" marks a
# method with content. An argument is "type:name"; the types have one letter each.
_TYPES = {
    "b": "bit",
    "o": "octet",
    "s": "short",
    "l": "long",
    "q": "longlong",
    "n": "shortstr",
    "x": "longstr",
    "t": "table",
}
_CLOSE = "s:reply-code n:reply-text s:class-id s:method-id"
_ARGS = "t:arguments"
_METHODS = f"""
connection 10
  10 start o:version-major o:version-minor t:server-properties x:mechanisms x:locales > start-ok
  11 start-ok t:client-properties n:mechanism x:response n:locale
  20 secure x:challenge > secure-ok
  21 secure-ok x:response
  30 tune s:channel-max l:frame-max s:heartbeat > tune-ok
  31 tune-ok s:channel-max l:frame-max s:heartbeat
  40 open n:virtual-host n:reserved-1 b:reserved-2 > open-ok
  41 open-ok n:reserved-1
  50 close {_CLOSE} > close-ok
  51 close-ok
  60 blocked n:reason
  61 unblocked
  70 update-secret x:new-secret n:reason > update-secret-ok
  71 update-secret-ok
channel 20
  10 open n:reserved-1 > open-ok
  11 open-ok x:reserved-1
  20 flow b:active > flow-ok
  21 flow-ok b:active
  40 close {_CLOSE} > close-ok
  41 close-ok
exchange 40
  10 declare s:_ n:exchange n:type b:passive b:durable b:auto-delete b:internal b:nowait {_ARGS} > declare-ok
  11 declare-ok
  20 delete s:_ n:exchange b:if-unused b:nowait > delete-ok
  21 delete-ok
  30 bind s:_ n:destination n:source n:routing-key b:nowait t:arguments > bind-ok
  31 bind-ok
  40 unbind s:_ n:destination n:source n:routing-key b:nowait t:arguments > unbind-ok
  51 unbind-ok
queue 50
  10 declare s:_ n:queue b:passive b:durable b:exclusive b:auto-delete b:nowait t:arguments > declare-ok
  11 declare-ok n:queue l:message-count l:consumer-count
  20 bind s:_ n:queue n:exchange n:routing-key b:nowait t:arguments > bind-ok
  21 bind-ok
  30 purge s:_ n:queue b:nowait > purge-ok
  31 purge-ok l:message-count
  40 delete s:_ n:queue b:if-unused b:if-empty b:nowait > delete-ok
  41 delete-ok l:message-count
  50 unbind s:_ n:queue n:exchange n:routing-key t:arguments > unbind-ok
  51 unbind-ok
basic 60
  10 qos l:prefetch-size s:prefetch-count b:global > qos-ok
  11 qos-ok
  20 consume s:_ n:queue n:consumer-tag b:no-local b:no-ack b:exclusive b:nowait t:arguments > consume-ok
  21 consume-ok n:consumer-tag
  30 cancel n:consumer-tag b:nowait > cancel-ok
  31 cancel-ok n:consumer-tag
  40 publish* s:_ n:exchange n:routing-key b:mandatory b:immediate
  50 return* s:reply-code n:reply-text n:exchange n:routing-key
  60 deliver* n:consumer-tag q:delivery-tag b:redelivered n:exchange n:routing-key
  70 get s:_ n:queue b:no-ack > get-ok get-empty
  71 get-ok* q:delivery-tag b:redelivered n:exchange n:routing-key l:message-count
  72 get-empty n:reserved-1
  80 ack q:delivery-tag b:multiple
  90 reject q:delivery-tag b:requeue
  100 recover-async b:requeue
  110 recover b:requeue > recover-ok
  111 recover-ok
  120 nack q:delivery-tag b:multiple b:requeue
confirm 85
  10 select b:nowait > select-ok
  11 select-ok
tx 90
  10 select > select-ok
  11 select-ok
  20 commit > commit-ok
  21 commit-ok
  30 rollback > rollback-ok
  31 rollback-ok
"""


@cache
def specification() -> Any:
    """The specification, loaded once."""
    spec = txspec.Spec(0, 9, "cycloneish")
    for name, number in _CONSTANTS.items():
        spec.constants.add(txspec.Constant(spec, name, number, None, []))
    klass: Any = None
    for line in filter(None, _METHODS.splitlines()):
        if not line.startswith(" "):
            name, index = line.split()
            klass = txspec.Class(spec, name, int(index), name, [])
            spec.classes.add(klass)
            continue
        left, _, answers = line.partition(">")
        index, name, *fields = left.split()
        content = name.endswith("*")
        method = txspec.Method(
            klass, name.rstrip("*"), int(index), content, answers.split(), bool(answers), "", []
        )
        _add_fields(method.fields, [field.replace("_", "reserved-1").split(":") for field in fields])
        klass.methods.add(method)
    for klass in spec.classes:
        for method in klass.methods:
            method.responses = [klass.methods.byname[answer] for answer in method.responses]
            for answer in method.responses:
                answer.response = True
    _add_fields(
        spec.classes.byname["basic"].fields,
        [(kind, name.replace("_", "-")) for _, name, kind in PROPERTIES],
    )
    spec.post_load()
    return spec


def _add_fields(fields: Any, described: Any) -> None:
    for number, (kind, name) in enumerate(described):
        fields.add(txspec.Field(name, number, _TYPES.get(kind, kind), []))
