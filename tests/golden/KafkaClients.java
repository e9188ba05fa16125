import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * What kafka-clients sends of the group APIs, and of those about leaders and replicas, for
 * `python -m tests.golden.record kafka-clients`.
 * Its only argument is the stub's address; kafka-clients and slf4j-api are on the class path.
 */
final class KafkaClients {
  private static final TopicPartition PARTITION = new TopicPartition("golden", 0);
  private static final String GROUP = "golden-group";

  interface Call {
    void run() throws Exception;
  }

  /** The stub answers some calls with less than the client needs: what was sent counts. */
  private static void tried(Call call) throws Exception {
    try {
      call.run();
    } catch (KafkaException | java.util.concurrent.ExecutionException expected) {
      System.err.println(expected);
    }
  }

  private static void consume(String address, String protocol) throws Exception {
    Map<String, Object> settings =
        Map.of(
            "bootstrap.servers", address,
            "client.id", "golden",
            "group.id", GROUP,
            "group.protocol", protocol,
            "enable.auto.commit", "false",
            "default.api.timeout.ms", "5000",
            "key.deserializer", ByteArrayDeserializer.class,
            "value.deserializer", ByteArrayDeserializer.class);
    try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings)) {
      if (protocol.equals("consumer")) {
        consumer.subscribe(new SubscriptionPattern("gold.*"));
      } else {
        consumer.subscribe(List.of("golden"));
      }
      long end = System.currentTimeMillis() + 5000;
      while (System.currentTimeMillis() < end) {
        consumer.poll(Duration.ofMillis(100));
      }
      tried(() -> consumer.commitSync(Map.of(PARTITION, new OffsetAndMetadata(5, "meta"))));
      tried(() -> consumer.committed(Set.of(PARTITION)));
    }
  }

  public static void main(String[] arguments) throws Exception {
    String address = arguments[0];
    consume(address, "classic");
    consume(address, "consumer");
    Map<String, Object> settings =
        Map.of(
            "bootstrap.servers", address,
            "client.id", "golden",
            "default.api.timeout.ms", "3000",
            "request.timeout.ms", "1000");
    try (Admin admin = Admin.create(settings)) {
      List<String> groups = List.of(GROUP);
      tried(() -> admin.listGroups().all().get());
      tried(() -> admin.describeConsumerGroups(groups).all().get());
      tried(() -> admin.describeClassicGroups(groups).all().get());
      tried(() -> admin.listConsumerGroupOffsets(GROUP).partitionsToOffsetAndMetadata().get());
      tried(
          () ->
              admin
                  .alterConsumerGroupOffsets(GROUP, Map.of(PARTITION, new OffsetAndMetadata(1)))
                  .all()
                  .get());
      tried(() -> admin.deleteConsumerGroupOffsets(GROUP, Set.of(PARTITION)).all().get());
      tried(() -> admin.deleteConsumerGroups(groups).all().get());
      tried(
          () ->
              admin
                  .removeMembersFromConsumerGroup(
                      GROUP,
                      new RemoveMembersFromConsumerGroupOptions(
                          List.of(new MemberToRemove("golden-instance"))))
                  .all()
                  .get());
      tried(() -> admin.electLeaders(ElectionType.UNCLEAN, Set.of(PARTITION)).partitions().get());
      tried(
          () ->
              admin
                  .alterPartitionReassignments(
                      Map.of(
                          PARTITION,
                          Optional.of(new NewPartitionReassignment(List.of(2, 1))),
                          new TopicPartition("golden", 1),
                          Optional.empty()))
                  .all()
                  .get());
      tried(() -> admin.listPartitionReassignments(Set.of(PARTITION)).reassignments().get());
    }
  }
}
