-- MySQL dump 10.13  Distrib 8.4.2, for Linux (x86_64)
--
-- Host: localhost    Database: shop
-- ------------------------------------------------------
-- Server version	8.4.2

/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
/*!50503 SET NAMES utf8mb4 */;
/*!40103 SET @OLD_TIME_ZONE=@@TIME_ZONE */;
/*!40103 SET TIME_ZONE='+00:00' */;
/*!40014 SET @OLD_FOREIGN_KEY_CHECKS=@@FOREIGN_KEY_CHECKS, FOREIGN_KEY_CHECKS=0 */;
/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;

--
-- Current Database: `shop`
--

CREATE DATABASE /*!32312 IF NOT EXISTS*/ `shop` /*!40100 DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci */ /*!80016 DEFAULT ENCRYPTION='N' */;

USE `shop`;

--
-- Table structure for table `customer`
--

DROP TABLE IF EXISTS `customer`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!50503 SET character_set_client = utf8mb4 */;
CREATE TABLE `customer` (
  `id` int unsigned NOT NULL AUTO_INCREMENT,
  `email` varchar(120) NOT NULL,
  `code` varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT 'O''Brien; \\ "x"' COMMENT 'what they call us; */ all',
  `kind` enum('person','it''s','co;mp') NOT NULL DEFAULT 'person',
  `flags` set('a','b','c') DEFAULT 'a,b',
  `vip` tinyint(1) NOT NULL DEFAULT '0',
  `balance` decimal(20,4) NOT NULL DEFAULT '0.0000',
  `born` date DEFAULT NULL,
  `created` timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  `seen` datetime(6) DEFAULT CURRENT_TIMESTAMP(6),
  `doc` json DEFAULT NULL,
  `token` binary(16) DEFAULT (uuid_to_bin(uuid())),
  `guid` char(36) DEFAULT (uuid()),
  `secret` int DEFAULT NULL /*!80023 INVISIBLE */,
  `domain` varchar(100) GENERATED ALWAYS AS (substring_index(`email`,_utf8mb4'@',-(1))) VIRTUAL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `uq_email` (`email`),
  KEY `ix_code` (`code`(10)),
  KEY `ix_two` (`kind`,`balance` DESC),
  KEY `ix_lower` ((lower(`email`))),
  FULLTEXT KEY `ft_email` (`email`) /*!50100 WITH PARSER `ngram` */ ,
  CONSTRAINT `ck_kind` CHECK (((`balance` >= 0) or (`vip` and (`kind` <> _utf8mb4'person')))),
  CONSTRAINT `ck_old` CHECK ((`born` > _utf8mb4'1900-01-01')) /*!80016 NOT ENFORCED */,
  CONSTRAINT `ck_regexp` CHECK (regexp_like(`email`,_utf8mb4'@'))
) ENGINE=InnoDB AUTO_INCREMENT=42 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci COMMENT='people; who buy';
/*!40101 SET character_set_client = @saved_cs_client */;

--
-- Dumping data for table `customer`
--

LOCK TABLES `customer` WRITE;
/*!40000 ALTER TABLE `customer` DISABLE KEYS */;
INSERT INTO `customer` (`id`, `email`, `code`, `kind`, `flags`, `vip`, `balance`, `born`, `created`, `seen`, `doc`, `token`, `guid`, `secret`) VALUES (1,'a@x.org','Mara \"q\" \\ \' \n \t \0 \Z ü😀','it\'s','a,c',1,12345678901.5678,'1999-12-31','2024-02-29 12:34:56','2024-01-01 00:00:00.123456','{\"a\": [1, \"x\\\"y\"]}',_binary '\0\\\'\"\n\r\Z','g1',7),(2,'b@x.org',NULL,'','',0,0.0000,'0000-00-00','2024-03-01 00:00:00',NULL,NULL,NULL,NULL,NULL);
INSERT INTO `customer` (`id`, `email`, `code`, `kind`, `flags`, `vip`, `balance`, `born`, `created`, `seen`, `doc`, `token`, `guid`, `secret`) VALUES (3,'C@x.org','semi;colon -- not /* this */','co;mp',NULL,0,12345678901234.5678,NULL,'2024-03-01 00:00:00',NULL,'[]',0x00FF,'g3',NULL);
/*!40000 ALTER TABLE `customer` ENABLE KEYS */;
UNLOCK TABLES;

--
-- Table structure for table `order`
--

DROP TABLE IF EXISTS `order`;
CREATE TABLE `order` (
  `id` bigint NOT NULL AUTO_INCREMENT,
  `customer_id` int unsigned NOT NULL,
  `parent` bigint DEFAULT NULL,
  `qty` int NOT NULL,
  `price` decimal(10,2) NOT NULL,
  `total` decimal(12,2) GENERATED ALWAYS AS ((`qty` * `price`)) STORED,
  `select` int DEFAULT NULL,
  `big` bigint unsigned DEFAULT NULL,
  `bits` bit(10) DEFAULT b'101',
  PRIMARY KEY (`id`),
  KEY `fk_c` (`customer_id`),
  KEY `fk_par` (`parent`),
  CONSTRAINT `fk_cust` FOREIGN KEY (`customer_id`) REFERENCES `customer` (`id`) ON DELETE CASCADE,
  CONSTRAINT `fk_par` FOREIGN KEY (`parent`) REFERENCES `order` (`id`) ON DELETE SET NULL ON UPDATE RESTRICT,
  CONSTRAINT `fk_qty` FOREIGN KEY (`qty`) REFERENCES `pairs` (`a`),
  CONSTRAINT `fk_gone` FOREIGN KEY (`select`) REFERENCES `elsewhere` (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci;
INSERT INTO `order` (`id`, `customer_id`, `parent`, `qty`, `price`, `select`, `big`, `bits`) VALUES (10,1,11,2,3.50,NULL,18446744073709551615,_binary '\0'),(11,2,NULL,1,5.00,NULL,9223372036854775807,0x02AA),(12,1,10,3,0.10,NULL,9007199254740993,b'1010');

DROP TABLE IF EXISTS `pairs`;
CREATE TABLE `pairs` (
  `a` int NOT NULL,
  `b` varchar(10) NOT NULL,
  `v` text,
  PRIMARY KEY (`a`,`b`),
  UNIQUE KEY `fk_c` (`v`(3))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci
/*!50100 PARTITION BY RANGE (`a`)
(PARTITION p0 VALUES LESS THAN (10) ENGINE = InnoDB,
 PARTITION p1 VALUES LESS THAN MAXVALUE ENGINE = InnoDB) */;
INSERT INTO `pairs` VALUES (2,'x','abcd'),(2,'y',NULL),(1,'x','abd');
/*!50003 SET sql_mode              = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION' */ ;
DELIMITER ;;
/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/ /*!50003 TRIGGER `tr` BEFORE INSERT ON `pairs` FOR EACH ROW BEGIN SET NEW.v = concat(NEW.v, ';'); /* x */ END */;;
DELIMITER ;
/*!50001 DROP VIEW IF EXISTS `big_orders`*/;
/*!50001 CREATE ALGORITHM=UNDEFINED */
/*!50013 DEFINER=`root`@`localhost` SQL SECURITY DEFINER */
/*!50001 VIEW `big_orders` AS select `o`.`id` AS `id`,`c`.`email` AS `email`,`o`.`total` AS `total` from (`order` `o` join `customer` `c` on((`c`.`id` = `o`.`customer_id`))) where (`o`.`qty` > 1) order by `o`.`id` desc */;
/*!50001 CREATE VIEW `by_year` AS select date_format(`customer`.`created`,'%Y') AS `y` from `customer` */;
/*!50003 DROP PROCEDURE IF EXISTS `p1` */;
DELIMITER ;;
CREATE DEFINER=`root`@`localhost` PROCEDURE `p1`()
BEGIN SELECT 1; SELECT 'a;b'; END ;;
DELIMITER ;

-- Dump completed on 2024-07-01 12:00:00
