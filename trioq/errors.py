"""The one exception tree of trioq.

    Exception
    ├ TrioqError                    anything trioq raises on purpose
    │ ├ KafkaError                  has a Kafka error code; what a client sees
    │ │ └ one class per code        OffsetOutOfRange, CorruptMessage, ...
    │ ├ ProtocolViolation           bytes that cannot be answered: the connection is closed
    │ ├ EncodeError                 a value that a message cannot carry in its version (trioq.wire)
    │ ├ ConfigError                 a key or value of the configuration is wrong
    │ ├ StartupError                the broker refuses to start (lock held, foreign data dir, ...)
    │ ├ PeerUnreachable             another broker gave no answer that makes sense
    │ ├ ClientError                 the client's own: ConnectionFailed, BufferFull, ...
    │ └ MetastoreError              see trioq.metastore.store for its branches
    └ AssertionError
      └ BrokerBug                   an invariant is broken where data is owned: the process ends

Codes, names and retriability are Apache Kafka's (org.apache.kafka.common.protocol.Errors).
"""

from __future__ import annotations

from typing import ClassVar, Final


class TrioqError(Exception):
    """Base of everything trioq raises on purpose."""


class ProtocolViolation(TrioqError):
    """The peer sent bytes that the protocol gives no way to answer.

    The connection is closed with one log line that holds this message; nothing
    else is touched.
    """


class ConfigError(TrioqError):
    """A configuration key or value is wrong; the message names key, value and what is allowed."""


class StartupError(TrioqError):
    """The broker refuses to start; the message says what happened, where, and what to do."""


class PeerUnreachable(TrioqError):
    """Another broker gave no answer, or none that makes sense; the message names it and says why.

    What it was asked for may have been done all the same.
    """


class MetastoreError(TrioqError):
    """A metastore operation failed; its branches are in trioq.metastore.store."""


class BrokerBug(AssertionError):
    """An invariant is broken where data is owned; ends the process rather than corrupt a log."""


BY_CODE: Final[dict[int, type[KafkaError]]] = {}
"""Every KafkaError class by its code (0, no error, has none)."""


class KafkaError(TrioqError):
    """An error with a Kafka error code.

    Subclasses are declared with ``code=`` and ``retriable=``; instances may carry a
    message for protocol fields that have room for one.
    """

    code: ClassVar[int]
    retriable: ClassVar[bool]
    kafka_name: ClassVar[str]

    def __init_subclass__(cls, *, code: int, retriable: bool = False, kafka_name: str) -> None:
        if code in BY_CODE:
            raise TypeError(f"error code {code} is declared twice")
        cls.code = code
        cls.retriable = retriable
        cls.kafka_name = kafka_name
        BY_CODE[code] = cls

    def __str__(self) -> str:
        return super().__str__() or (self.__doc__ or "").strip()


def error_class(code: int) -> type[KafkaError]:
    """The class of a (non-zero) Kafka error code; UnknownServerError for an unknown one."""
    return BY_CODE.get(code, UnknownServerError)


class UnknownServerError(KafkaError, code=-1, kafka_name="UNKNOWN_SERVER_ERROR"):
    """The server met an unexpected error; its log has the details."""


class OffsetOutOfRange(KafkaError, code=1, kafka_name="OFFSET_OUT_OF_RANGE"):
    """The requested offset is outside the range kept by the partition."""


class CorruptMessage(KafkaError, code=2, retriable=True, kafka_name="CORRUPT_MESSAGE"):
    """A batch failed its CRC check, exceeds the valid size, or is otherwise corrupt."""


class UnknownTopicOrPartition(
    KafkaError, code=3, retriable=True, kafka_name="UNKNOWN_TOPIC_OR_PARTITION"
):
    """This server does not host this topic-partition."""


class InvalidFetchSize(KafkaError, code=4, kafka_name="INVALID_FETCH_SIZE"):
    """The requested fetch size is invalid."""


class LeaderNotAvailable(KafkaError, code=5, retriable=True, kafka_name="LEADER_NOT_AVAILABLE"):
    """There is no leader for this topic-partition: an election is in progress."""


class NotLeaderOrFollower(KafkaError, code=6, retriable=True, kafka_name="NOT_LEADER_OR_FOLLOWER"):
    """This broker is not the leader (or, for reads, a follower) of the topic-partition."""


class RequestTimedOut(KafkaError, code=7, retriable=True, kafka_name="REQUEST_TIMED_OUT"):
    """The request timed out."""


class BrokerNotAvailable(KafkaError, code=8, kafka_name="BROKER_NOT_AVAILABLE"):
    """The broker is not available."""


class ReplicaNotAvailable(KafkaError, code=9, retriable=True, kafka_name="REPLICA_NOT_AVAILABLE"):
    """The replica is not available for the requested topic-partition."""


class MessageTooLarge(KafkaError, code=10, kafka_name="MESSAGE_TOO_LARGE"):
    """A batch is larger than max.message.bytes."""


class StaleControllerEpoch(KafkaError, code=11, kafka_name="STALE_CONTROLLER_EPOCH"):
    """The controller moved to another broker."""


class OffsetMetadataTooLarge(KafkaError, code=12, kafka_name="OFFSET_METADATA_TOO_LARGE"):
    """The metadata field of the offset request is too large."""


class NetworkException(KafkaError, code=13, retriable=True, kafka_name="NETWORK_EXCEPTION"):
    """The connection ended before a response was received."""


class CoordinatorLoadInProgress(
    KafkaError, code=14, retriable=True, kafka_name="COORDINATOR_LOAD_IN_PROGRESS"
):
    """The coordinator is loading and cannot answer yet."""


class CoordinatorNotAvailable(
    KafkaError, code=15, retriable=True, kafka_name="COORDINATOR_NOT_AVAILABLE"
):
    """The coordinator is not available."""


class NotCoordinator(KafkaError, code=16, retriable=True, kafka_name="NOT_COORDINATOR"):
    """This broker is not the coordinator."""


class InvalidTopicException(KafkaError, code=17, kafka_name="INVALID_TOPIC_EXCEPTION"):
    """The topic name is illegal."""


class RecordListTooLarge(KafkaError, code=18, kafka_name="RECORD_LIST_TOO_LARGE"):
    """The request holds more batches than a segment can take."""


class NotEnoughReplicas(KafkaError, code=19, retriable=True, kafka_name="NOT_ENOUGH_REPLICAS"):
    """The in-sync replicas are fewer than min.insync.replicas; nothing was appended."""


class NotEnoughReplicasAfterAppend(
    KafkaError, code=20, retriable=True, kafka_name="NOT_ENOUGH_REPLICAS_AFTER_APPEND"
):
    """The batch was appended, but to fewer in-sync replicas than min.insync.replicas."""


class InvalidRequiredAcks(KafkaError, code=21, kafka_name="INVALID_REQUIRED_ACKS"):
    """acks must be -1 (all), 0 or 1."""


class IllegalGeneration(KafkaError, code=22, kafka_name="ILLEGAL_GENERATION"):
    """The generation is not the group's current one."""


class InconsistentGroupProtocol(KafkaError, code=23, kafka_name="INCONSISTENT_GROUP_PROTOCOL"):
    """The member's protocols or protocol type do not fit the group's."""


class InvalidGroupId(KafkaError, code=24, kafka_name="INVALID_GROUP_ID"):
    """The group id is invalid."""


class UnknownMemberId(KafkaError, code=25, kafka_name="UNKNOWN_MEMBER_ID"):
    """The coordinator does not know this member."""


class InvalidSessionTimeout(KafkaError, code=26, kafka_name="INVALID_SESSION_TIMEOUT"):
    """The session timeout is outside group.min.session.timeout.ms..group.max.session.timeout.ms."""


class RebalanceInProgress(KafkaError, code=27, kafka_name="REBALANCE_IN_PROGRESS"):
    """The group is rebalancing: rejoin."""


class InvalidCommitOffsetSize(KafkaError, code=28, kafka_name="INVALID_COMMIT_OFFSET_SIZE"):
    """The committed offset's data is too large."""


class TopicAuthorizationFailed(KafkaError, code=29, kafka_name="TOPIC_AUTHORIZATION_FAILED"):
    """Not authorized for this topic."""


class GroupAuthorizationFailed(KafkaError, code=30, kafka_name="GROUP_AUTHORIZATION_FAILED"):
    """Not authorized for this group."""


class ClusterAuthorizationFailed(KafkaError, code=31, kafka_name="CLUSTER_AUTHORIZATION_FAILED"):
    """Not authorized for the cluster."""


class InvalidTimestamp(KafkaError, code=32, kafka_name="INVALID_TIMESTAMP"):
    """The timestamp of a record is out of the accepted range."""


class UnsupportedSaslMechanism(KafkaError, code=33, kafka_name="UNSUPPORTED_SASL_MECHANISM"):
    """The SASL mechanism is not enabled on this broker."""


class IllegalSaslState(KafkaError, code=34, kafka_name="ILLEGAL_SASL_STATE"):
    """The request is not valid in the current SASL state."""


class UnsupportedVersion(KafkaError, code=35, kafka_name="UNSUPPORTED_VERSION"):
    """The version of the API is not supported."""


class TopicAlreadyExists(KafkaError, code=36, kafka_name="TOPIC_ALREADY_EXISTS"):
    """A topic of this name exists already."""


class InvalidPartitions(KafkaError, code=37, kafka_name="INVALID_PARTITIONS"):
    """The number of partitions is invalid."""


class InvalidReplicationFactor(KafkaError, code=38, kafka_name="INVALID_REPLICATION_FACTOR"):
    """The replication factor is below 1 or above the number of live brokers."""


class InvalidReplicaAssignment(KafkaError, code=39, kafka_name="INVALID_REPLICA_ASSIGNMENT"):
    """The replica assignment is invalid."""


class InvalidConfig(KafkaError, code=40, kafka_name="INVALID_CONFIG"):
    """A configuration key or value is invalid."""


class NotController(KafkaError, code=41, retriable=True, kafka_name="NOT_CONTROLLER"):
    """No broker that answers is the controller; one is elected once ZooKeeper is reached."""


class InvalidRequest(KafkaError, code=42, kafka_name="INVALID_REQUEST"):
    """The request is malformed, or asks for something contradictory."""


class UnsupportedForMessageFormat(KafkaError, code=43, kafka_name="UNSUPPORTED_FOR_MESSAGE_FORMAT"):
    """The message format of the topic or request does not support this."""


class PolicyViolation(KafkaError, code=44, kafka_name="POLICY_VIOLATION"):
    """The request violates a policy."""


class OutOfOrderSequenceNumber(KafkaError, code=45, kafka_name="OUT_OF_ORDER_SEQUENCE_NUMBER"):
    """The producer's sequence number is out of order: a batch is missing."""


class DuplicateSequenceNumber(KafkaError, code=46, kafka_name="DUPLICATE_SEQUENCE_NUMBER"):
    """The batch is a duplicate of one older than the remembered window."""


class InvalidProducerEpoch(KafkaError, code=47, kafka_name="INVALID_PRODUCER_EPOCH"):
    """A producer with a newer epoch has taken this one's place."""


class InvalidTxnState(KafkaError, code=48, kafka_name="INVALID_TXN_STATE"):
    """The transaction's state does not allow this operation."""


class InvalidProducerIdMapping(KafkaError, code=49, kafka_name="INVALID_PRODUCER_ID_MAPPING"):
    """The producer id is not the one mapped to this transactional id."""


class InvalidTransactionTimeout(KafkaError, code=50, kafka_name="INVALID_TRANSACTION_TIMEOUT"):
    """The transaction timeout is above transaction.max.timeout.ms."""


class ConcurrentTransactions(
    KafkaError, code=51, retriable=True, kafka_name="CONCURRENT_TRANSACTIONS"
):
    """A previous transaction of this producer is still completing."""


class TransactionCoordinatorFenced(
    KafkaError, code=52, kafka_name="TRANSACTION_COORDINATOR_FENCED"
):
    """A newer transaction coordinator has fenced this one."""


class TransactionalIdAuthorizationFailed(
    KafkaError, code=53, kafka_name="TRANSACTIONAL_ID_AUTHORIZATION_FAILED"
):
    """Not authorized for this transactional id."""


class SecurityDisabled(KafkaError, code=54, kafka_name="SECURITY_DISABLED"):
    """Security features are disabled."""


class OperationNotAttempted(KafkaError, code=55, kafka_name="OPERATION_NOT_ATTEMPTED"):
    """The operation was not attempted."""


class KafkaStorageError(KafkaError, code=56, retriable=True, kafka_name="KAFKA_STORAGE_ERROR"):
    """A disk error occurred on the log directory."""


class LogDirNotFound(KafkaError, code=57, kafka_name="LOG_DIR_NOT_FOUND"):
    """No such log directory on the broker."""


class SaslAuthenticationFailed(KafkaError, code=58, kafka_name="SASL_AUTHENTICATION_FAILED"):
    """SASL authentication failed."""


class UnknownProducerId(KafkaError, code=59, kafka_name="UNKNOWN_PRODUCER_ID"):
    """The broker has no state for this producer id."""


class ReassignmentInProgress(KafkaError, code=60, kafka_name="REASSIGNMENT_IN_PROGRESS"):
    """A partition reassignment is in progress."""


class DelegationTokenAuthDisabled(KafkaError, code=61, kafka_name="DELEGATION_TOKEN_AUTH_DISABLED"):
    """Delegation tokens are not enabled."""


class DelegationTokenNotFound(KafkaError, code=62, kafka_name="DELEGATION_TOKEN_NOT_FOUND"):
    """The delegation token was not found."""


class DelegationTokenOwnerMismatch(
    KafkaError, code=63, kafka_name="DELEGATION_TOKEN_OWNER_MISMATCH"
):
    """The principal does not own the delegation token."""


class DelegationTokenRequestNotAllowed(
    KafkaError, code=64, kafka_name="DELEGATION_TOKEN_REQUEST_NOT_ALLOWED"
):
    """Delegation token requests are not allowed on this connection."""


class DelegationTokenAuthorizationFailed(
    KafkaError, code=65, kafka_name="DELEGATION_TOKEN_AUTHORIZATION_FAILED"
):
    """Not authorized for this delegation token."""


class DelegationTokenExpired(KafkaError, code=66, kafka_name="DELEGATION_TOKEN_EXPIRED"):
    """The delegation token has expired."""


class InvalidPrincipalType(KafkaError, code=67, kafka_name="INVALID_PRINCIPAL_TYPE"):
    """The principal type is not supported."""


class NonEmptyGroup(KafkaError, code=68, kafka_name="NON_EMPTY_GROUP"):
    """The group is not empty."""


class GroupIdNotFound(KafkaError, code=69, kafka_name="GROUP_ID_NOT_FOUND"):
    """The group id does not exist."""


class FetchSessionIdNotFound(
    KafkaError, code=70, retriable=True, kafka_name="FETCH_SESSION_ID_NOT_FOUND"
):
    """The fetch session id was not found."""


class InvalidFetchSessionEpoch(
    KafkaError, code=71, retriable=True, kafka_name="INVALID_FETCH_SESSION_EPOCH"
):
    """The fetch session epoch is not the expected one."""


class ListenerNotFound(KafkaError, code=72, retriable=True, kafka_name="LISTENER_NOT_FOUND"):
    """No listener of the leader matches the one of the request."""


class TopicDeletionDisabled(KafkaError, code=73, kafka_name="TOPIC_DELETION_DISABLED"):
    """Topic deletion is disabled."""


class FencedLeaderEpoch(KafkaError, code=74, retriable=True, kafka_name="FENCED_LEADER_EPOCH"):
    """The leader epoch of the request is older than the broker's."""


class UnknownLeaderEpoch(KafkaError, code=75, retriable=True, kafka_name="UNKNOWN_LEADER_EPOCH"):
    """The leader epoch of the request is newer than the broker's."""


class UnsupportedCompressionType(KafkaError, code=76, kafka_name="UNSUPPORTED_COMPRESSION_TYPE"):
    """The compression type is not supported by this API version."""


class StaleBrokerEpoch(KafkaError, code=77, kafka_name="STALE_BROKER_EPOCH"):
    """The broker epoch is stale."""


class OffsetNotAvailable(KafkaError, code=78, retriable=True, kafka_name="OFFSET_NOT_AVAILABLE"):
    """The high watermark has not caught up; try again."""


class MemberIdRequired(KafkaError, code=79, kafka_name="MEMBER_ID_REQUIRED"):
    """The member must rejoin with the member id given in this response."""


class PreferredLeaderNotAvailable(
    KafkaError, code=80, retriable=True, kafka_name="PREFERRED_LEADER_NOT_AVAILABLE"
):
    """The preferred leader is not available."""


class GroupMaxSizeReached(KafkaError, code=81, kafka_name="GROUP_MAX_SIZE_REACHED"):
    """The group has reached group.max.size."""


class FencedInstanceId(KafkaError, code=82, kafka_name="FENCED_INSTANCE_ID"):
    """Another member has taken this static member id."""


class EligibleLeadersNotAvailable(
    KafkaError, code=83, retriable=True, kafka_name="ELIGIBLE_LEADERS_NOT_AVAILABLE"
):
    """No eligible leader of the topic-partition is available."""


class ElectionNotNeeded(KafkaError, code=84, retriable=True, kafka_name="ELECTION_NOT_NEEDED"):
    """No leader election is needed for the topic-partition."""


class NoReassignmentInProgress(KafkaError, code=85, kafka_name="NO_REASSIGNMENT_IN_PROGRESS"):
    """No partition reassignment is in progress."""


class GroupSubscribedToTopic(KafkaError, code=86, kafka_name="GROUP_SUBSCRIBED_TO_TOPIC"):
    """Deleting offsets is forbidden while the group is subscribed to the topic."""


class InvalidRecord(KafkaError, code=87, kafka_name="INVALID_RECORD"):
    """A batch or record is invalid and was rejected."""


class UnstableOffsetCommit(
    KafkaError, code=88, retriable=True, kafka_name="UNSTABLE_OFFSET_COMMIT"
):
    """The partition has offsets pending in a transaction."""


class ThrottlingQuotaExceeded(
    KafkaError, code=89, retriable=True, kafka_name="THROTTLING_QUOTA_EXCEEDED"
):
    """The throttling quota was exceeded."""


class ProducerFenced(KafkaError, code=90, kafka_name="PRODUCER_FENCED"):
    """A producer with a newer epoch has fenced this one."""


class ResourceNotFound(KafkaError, code=91, kafka_name="RESOURCE_NOT_FOUND"):
    """The resource was not found."""


class DuplicateResource(KafkaError, code=92, kafka_name="DUPLICATE_RESOURCE"):
    """The resource is a duplicate."""


class UnacceptableCredential(KafkaError, code=93, kafka_name="UNACCEPTABLE_CREDENTIAL"):
    """The credential is unacceptable."""


class InconsistentVoterSet(KafkaError, code=94, kafka_name="INCONSISTENT_VOTER_SET"):
    """Either the sender or the recipient set of voters is inconsistent."""


class InvalidUpdateVersion(KafkaError, code=95, kafka_name="INVALID_UPDATE_VERSION"):
    """The update version is invalid."""


class FeatureUpdateFailed(KafkaError, code=96, kafka_name="FEATURE_UPDATE_FAILED"):
    """Updating the features failed."""


class PrincipalDeserializationFailure(
    KafkaError, code=97, kafka_name="PRINCIPAL_DESERIALIZATION_FAILURE"
):
    """Deserializing the forwarded principal failed."""


class SnapshotNotFound(KafkaError, code=98, kafka_name="SNAPSHOT_NOT_FOUND"):
    """The snapshot was not found."""


class PositionOutOfRange(KafkaError, code=99, kafka_name="POSITION_OUT_OF_RANGE"):
    """The position is outside the snapshot."""


class UnknownTopicId(KafkaError, code=100, retriable=True, kafka_name="UNKNOWN_TOPIC_ID"):
    """No topic has this id."""


class DuplicateBrokerRegistration(KafkaError, code=101, kafka_name="DUPLICATE_BROKER_REGISTRATION"):
    """The broker registration is a duplicate."""


class BrokerIdNotRegistered(KafkaError, code=102, kafka_name="BROKER_ID_NOT_REGISTERED"):
    """The broker id is not registered."""


class InconsistentTopicId(KafkaError, code=103, retriable=True, kafka_name="INCONSISTENT_TOPIC_ID"):
    """The topic id of the request does not match the one of the topic."""


class InconsistentClusterId(KafkaError, code=104, kafka_name="INCONSISTENT_CLUSTER_ID"):
    """The cluster id does not match."""


class TransactionalIdNotFound(KafkaError, code=105, kafka_name="TRANSACTIONAL_ID_NOT_FOUND"):
    """The transactional id was not found."""


class FetchSessionTopicIdError(
    KafkaError, code=106, retriable=True, kafka_name="FETCH_SESSION_TOPIC_ID_ERROR"
):
    """Topic ids in the fetch session are used inconsistently."""


class IneligibleReplica(KafkaError, code=107, kafka_name="INELIGIBLE_REPLICA"):
    """The candidate is ineligible for the ISR."""


class NewLeaderElected(KafkaError, code=108, kafka_name="NEW_LEADER_ELECTED"):
    """A new leader was elected while the request was under way."""


class OffsetMovedToTieredStorage(KafkaError, code=109, kafka_name="OFFSET_MOVED_TO_TIERED_STORAGE"):
    """The requested offset was moved to tiered storage."""


class FencedMemberEpoch(KafkaError, code=110, kafka_name="FENCED_MEMBER_EPOCH"):
    """The member epoch is fenced; rejoin with epoch 0."""


class UnreleasedInstanceId(KafkaError, code=111, kafka_name="UNRELEASED_INSTANCE_ID"):
    """The instance id is still used by another member."""


class UnsupportedAssignor(KafkaError, code=112, kafka_name="UNSUPPORTED_ASSIGNOR"):
    """The assignor, or its version range, is not supported by the group."""


class StaleMemberEpoch(KafkaError, code=113, kafka_name="STALE_MEMBER_EPOCH"):
    """The member epoch is stale."""


class MismatchedEndpointType(KafkaError, code=114, kafka_name="MISMATCHED_ENDPOINT_TYPE"):
    """The request was sent to an endpoint of the wrong type."""


class UnsupportedEndpointType(KafkaError, code=115, kafka_name="UNSUPPORTED_ENDPOINT_TYPE"):
    """The endpoint type is not supported."""


class UnknownControllerId(KafkaError, code=116, kafka_name="UNKNOWN_CONTROLLER_ID"):
    """The controller id is unknown."""


class UnknownSubscriptionId(KafkaError, code=117, kafka_name="UNKNOWN_SUBSCRIPTION_ID"):
    """The subscription id is unknown; fetch the subscription again."""


class TelemetryTooLarge(KafkaError, code=118, kafka_name="TELEMETRY_TOO_LARGE"):
    """The telemetry exceeds the size limit."""


class InvalidRegistration(KafkaError, code=119, kafka_name="INVALID_REGISTRATION"):
    """The controller registration is invalid."""


class TransactionAbortable(KafkaError, code=120, kafka_name="TRANSACTION_ABORTABLE"):
    """The transaction must be aborted; the producer may go on afterwards."""


class InvalidRecordState(KafkaError, code=121, kafka_name="INVALID_RECORD_STATE"):
    """The record's state does not allow this acknowledgement."""


class ShareSessionNotFound(
    KafkaError, code=122, retriable=True, kafka_name="SHARE_SESSION_NOT_FOUND"
):
    """The share session was not found."""


class InvalidShareSessionEpoch(
    KafkaError, code=123, retriable=True, kafka_name="INVALID_SHARE_SESSION_EPOCH"
):
    """The share session epoch is not the expected one."""


class FencedStateEpoch(KafkaError, code=124, kafka_name="FENCED_STATE_EPOCH"):
    """The share coordinator fenced this state epoch."""


class InvalidVoterKey(KafkaError, code=125, kafka_name="INVALID_VOTER_KEY"):
    """The voter key does not match."""


class DuplicateVoter(KafkaError, code=126, kafka_name="DUPLICATE_VOTER"):
    """The voter exists already."""


class VoterNotFound(KafkaError, code=127, kafka_name="VOTER_NOT_FOUND"):
    """The voter was not found."""


class InvalidRegularExpression(KafkaError, code=128, kafka_name="INVALID_REGULAR_EXPRESSION"):
    """The regular expression is invalid."""


class RebootstrapRequired(KafkaError, code=129, kafka_name="REBOOTSTRAP_REQUIRED"):
    """The client's metadata is stale: bootstrap again."""


class StreamsInvalidTopology(KafkaError, code=130, kafka_name="STREAMS_INVALID_TOPOLOGY"):
    """The streams topology is invalid."""


class StreamsInvalidTopologyEpoch(
    KafkaError, code=131, kafka_name="STREAMS_INVALID_TOPOLOGY_EPOCH"
):
    """The streams topology epoch is invalid."""


class StreamsTopologyFenced(KafkaError, code=132, kafka_name="STREAMS_TOPOLOGY_FENCED"):
    """The streams topology epoch is stale."""


class ShareSessionLimitReached(
    KafkaError, code=133, retriable=True, kafka_name="SHARE_SESSION_LIMIT_REACHED"
):
    """The limit of share sessions was reached."""


# ---- the client ----


class ClientError(TrioqError):
    """What the client library raises for a reason that is not a broker's error code.

    `retriable` says whether the same call may succeed later without anything being changed.
    """

    retriable: ClassVar[bool] = False


class ConnectionFailed(ClientError):
    """A connection to a broker could not be made, or broke; the message names the address."""

    retriable = True


class BootstrapFailed(ConnectionFailed):
    """No bootstrap address answered; the message has the reason for each."""


class CallTimeout(ConnectionFailed):
    """A broker did not answer a request in time; its connection has been closed."""


class AuthenticationFailed(ClientError):
    """The broker refused the credentials, or TLS could not verify the broker."""


class UnsupportedByBroker(ClientError):
    """The broker serves no version of an API, or of a feature, that the call needs."""


class ClientClosed(ClientError):
    """The client, producer or consumer was used outside of its `async with` block."""


class ClientForked(ClientError):
    """A client was used in a child process after fork(): sockets cannot be shared, open another."""


class ClientUsageError(ClientError, ValueError):
    """An argument or setting of the client is wrong; the message names it and what is allowed."""


class CommitFailed(ClientError):
    """Offsets were not committed because the group has moved on without this consumer."""


class NoCommittedOffset(ClientError):
    """A partition has no offset to start from, and the reset policy is to raise."""


class BufferFull(ClientError):
    """The producer's buffer has no room: await `send`, or `flush`, or raise `buffer_bytes`."""

    retriable = True


class DeliveryTimeout(ClientError):
    """A record was not acknowledged within the delivery timeout; it may have been written."""


class RecordTooLarge(ClientError):
    """A record is larger than the producer's `max_request_bytes`."""
