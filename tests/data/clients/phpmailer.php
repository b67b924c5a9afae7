<?php // phpmailer.php PORT FROM TO BODY-FILE
require 'libphp-phpmailer/autoload.php';
[, $port, $from, $to, $bodyFile] = $argv;
$mail = new PHPMailer\PHPMailer\PHPMailer(true);
$mail->isSMTP();
$mail->Host = '127.0.0.1';
$mail->Port = (int) $port;
$mail->SMTPAuth = false;
$mail->CharSet = 'UTF-8';
$mail->setFrom($from, 'PHP');
$mail->addAddress($to);
$mail->Subject = 'From PHPMailer';
$mail->Body = file_get_contents($bodyFile);
$mail->send();
echo $mail->getSMTPInstance()->getLastReply();
